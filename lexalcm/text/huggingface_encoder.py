"""Text to concepts by an encoder in a local folder, in the layout of the Hugging Face hub. The network is never asked.

Shapes: B sentences of a batch, T tokens, C dimensions.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sys import modules
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import Embedding, Module
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from lexalcm.errors import CheckpointError
from lexalcm.memory import check_fits
from lexalcm.text.companions import import_companion
from lexalcm.text.huggingface_folder import EncoderFolder, read_encoder_folder
from lexalcm.text.languages import sonar_code
from lexalcm.text.token_batches import BatchingEncoder

_NO_LIMIT: Final = 1_000_000
"""A tokenizer without a limit says 1e30."""

_LANGUAGE_TOKEN: Final = re.compile(r"[a-z]{2,3}_[A-Za-z]{2,4}")
_LOCAL: Final = {"local_files_only": True, "trust_remote_code": False}

_log = logging.getLogger(__name__)


class HuggingFaceEncoder(BatchingEncoder):
    """Of a model with an encoder and a decoder, such as SONAR in its form of M2M100, the encoder alone.

    A tokenizer that is told the language (``src_lang``) is told each sentence's. ``langs`` are SONAR's codes then, such
    as ``jpn_Jpan`` for M2M100's ``ja``, and the tokenizer's own where SONAR has none. No other one knows languages.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        pooling: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_tokens: int | None = None,
    ) -> None:
        """
        :param pooling: ``mean``, ``cls``, ``max`` or ``last``; None is what the folder says, or else the mean.
        :param dtype: Of the weights; vectors are pooled in float32 whatever it is.
        :param batch_tokens: As :class:`~lexalcm.text.token_batches.BatchingEncoder` takes it.
        :raises CheckpointError: There is no such folder, or what is in it is damaged, or no encoder of text.
        :raises ConfigError: It does not fit in memory, or a value is out of its range.
        :raises SetupError: The transformers package is missing, or does not fit.
        """
        super().__init__(device=torch.device(device), batch_tokens=batch_tokens)
        self._folder = read_encoder_folder(folder, pooling=pooling)
        self.name = self._folder.name
        self._title = f'The encoder "{self.name}"'
        self._tokenizer = _load_tokenizer(self._folder)
        self._own_codes = _language_codes(self._tokenizer)
        self.langs = sorted(self._own_codes) if self._own_codes else None
        self._usual_code = getattr(self._tokenizer, "src_lang", None)
        self._model = _load_model(self._folder, self._device, dtype, self._title)
        self.dim = int(self._model.config.hidden_size)
        self.max_tokens = _max_tokens(self._folder, self._tokenizer, self._model)
        self._dtype = dtype
        _log.info("Sentences are encoded by %s, %s pooling, on %s.", self.name, self._folder.pooling, self._device)

    def facts(self) -> dict[str, Any]:
        """What a vector depends on, as plain values."""
        return {
            "name": self.name,
            "kind": "hf",
            "architecture": type(self._model).__name__,
            "dim": self.dim,
            "max_tokens": self.max_tokens,
            "pooling": self._folder.pooling,
            "normalize": self._folder.normalize,
            "lower": self._folder.lower,
            "languages": "none" if self.langs is None else f"src_lang, {len(self.langs)} codes",
            "dtype": str(self._dtype).removeprefix("torch."),
            "device": str(self._device),
            "weights": dict(self._folder.weights),
        }

    def _tokenize(self, sentences: Sequence[str], lang: str | None, *, cut: bool = False) -> list[Sequence[int]]:
        if self._own_codes:
            self._tokenizer.src_lang = self._usual_code if lang is None else self._own_codes[lang]
        texts = [sentence.lower() for sentence in sentences] if self._folder.lower else list(sentences)
        # The tokenizer cuts by itself, for the marks at the end must stay.
        return self._tokenizer(
            texts, truncation=cut, max_length=self.max_tokens if cut else None, padding=False, verbose=False
        )["input_ids"]

    @torch.inference_mode()
    def _run(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        lengths_B = torch.tensor([len(sequence) for sequence in tokens])
        padding = self._tokenizer.pad_token_id or 0
        tokens_BT = pad_sequence([torch.tensor(sequence) for sequence in tokens], True, padding).to(self._device)
        mask_BT = (torch.arange(tokens_BT.shape[1]) < lengths_B[:, None]).to(self._device)
        hidden_BTC = self._model(input_ids=tokens_BT, attention_mask=mask_BT.long()).last_hidden_state.float()
        concepts_BC = _pool(hidden_BTC, mask_BT, self._folder.pooling)
        return normalize(concepts_BC, dim=1) if self._folder.normalize else concepts_BC


def _pool(hidden_BTC: Tensor, mask_BT: Tensor, pooling: str) -> Tensor:
    mask_BT1 = mask_BT[:, :, None]
    if pooling == "mean":
        return hidden_BTC.where(mask_BT1, 0.0).sum(1) / mask_BT1.sum(1)
    if pooling == "max":
        return hidden_BTC.where(mask_BT1, -torch.inf).amax(1)
    if pooling == "cls":
        return hidden_BTC[:, 0]
    return hidden_BTC[torch.arange(len(hidden_BTC)), mask_BT.sum(1) - 1]


def _load_tokenizer(folder: EncoderFolder) -> Any:
    transformers = import_companion("transformers", package="transformers")
    with _told_plainly(folder, "tokenizer"):
        return transformers.AutoTokenizer.from_pretrained(str(folder.path), **_LOCAL)


def _load_model(folder: EncoderFolder, device: torch.device, dtype: torch.dtype, what: str) -> Module:
    transformers = import_companion("transformers", package="transformers")
    with _told_plainly(folder, "model"):
        config = transformers.AutoConfig.from_pretrained(str(folder.path), **_LOCAL)
        kind = _model_class(config)
        with torch.device("meta"):
            empty = kind(config)
        size = sum(parameter.numel() for parameter in empty.parameters()) * dtype.itemsize
    check_fits(size, device, what=what)
    with _told_plainly(folder, "model"), _quiet(transformers.utils.logging):
        model, report = kind.from_pretrained(
            str(folder.path),
            config=config,
            dtype=dtype,
            local_files_only=True,
            weights_only=True,
            output_loading_info=True,
        )
    is_whole = config.is_encoder_decoder and hasattr(model, "get_encoder") and hasattr(model, "decoder")
    encoder = model.get_encoder() if is_whole else model
    _check_all_there(folder, model, encoder, report["missing_keys"])
    return encoder.to(device).eval()


def _model_class(config: Any) -> type[Module]:
    """What transformers takes for the model, or the encoder alone where the weights are those of one."""
    from transformers import MODEL_MAPPING, PreTrainedModel

    kind = MODEL_MAPPING.get(type(config), None)
    if getattr(kind, "main_input_name", None) != "input_ids" or getattr(config, "hidden_size", None) is None:
        raise CheckpointError(f'its type is "{config.model_type}", which is no encoder of text.')
    named = (config.architectures or [""])[0]
    # Weights of an encoder alone have other names than those of a whole model: none of them would be found.
    if named.endswith(("Encoder", "EncoderModel")):
        of_encoder = getattr(modules[kind.__module__], named, None)
        if isinstance(of_encoder, type) and issubclass(of_encoder, PreTrainedModel):
            return of_encoder
    return kind


def _check_all_there(folder: EncoderFolder, model: Module, encoder: Module, missing: Sequence[str]) -> None:
    """What is missing has random values after loading; a pooler of BERT's is not used, and may be missing."""
    used = {id(parameter) for parameter in encoder.parameters()}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in used}
    if lost := sorted(name for name in names.intersection(missing) if "pooler." not in name):
        raise CheckpointError(
            f'The weights in "{folder.path}" lack {len(lost)} of those of {type(encoder).__name__}, such as {lost[0]}.'
        )


def _language_codes(tokenizer: Any) -> dict[str, str]:
    """The tokenizer's codes by those of SONAR; empty for one that is told no language."""
    if not hasattr(tokenizer, "src_lang"):
        return {}
    listed = getattr(tokenizer, "lang_code_to_id", None) or filter(
        _LANGUAGE_TOKEN.fullmatch, tokenizer.additional_special_tokens
    )
    return {sonar_code(code) or code: code for code in sorted(listed)}


def _max_tokens(folder: EncoderFolder, tokenizer: Any, model: Module) -> int | None:
    limits = [folder.max_tokens, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind that of the padding.
        if name.endswith("position_embeddings") and isinstance(module, Embedding) and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min((int(limit) for limit in limits if limit is not None and 0 < limit < _NO_LIMIT), default=None)


@contextmanager
def _told_plainly(folder: EncoderFolder, what: str) -> Iterator[None]:
    try:
        yield
    # What a damaged file raises is up to its reader.
    except Exception as ex:
        reason = str(ex).strip().partition("\n")[0] or type(ex).__name__
        raise CheckpointError(f'The {what} in "{folder.path}" cannot be loaded: {reason}') from ex


@contextmanager
def _quiet(logging_of_transformers: Any) -> Iterator[None]:
    """What is missing or left over is told by us, where it matters."""
    before = logging_of_transformers.get_verbosity()
    logging_of_transformers.set_verbosity_error()
    try:
        yield
    finally:
        logging_of_transformers.set_verbosity(before)
