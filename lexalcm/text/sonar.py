"""Text to concepts and back by SONAR, through sonar-space's own pipelines.

Shapes: N sentences or concepts, C dimensions.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from lexalcm.errors import ConfigError
from lexalcm.text.checks import check_concepts
from lexalcm.text.companions import import_companion
from lexalcm.text.decoder_options import DecoderOptions, read_decoder_options
from lexalcm.text.interface import DecodedSentence
from lexalcm.text.languages import SONAR_CARD, check_language, sonar_languages
from lexalcm.text.sonar_model import load_sonar_model, load_sonar_tokenizer
from lexalcm.text.token_batches import BatchingEncoder

SONAR_DECODER_CARD: Final = "text_sonar_basic_decoder"

_USUAL_MAX_LENGTH: Final = 256
_NUM_PREFIX_TOKENS: Final = 2
_NUM_OTHER_TOKENS: Final = 3
"""Beside those of the text: language, end, and what SentencePiece puts before the first word."""


class SonarEncoder(BatchingEncoder):
    """A sentence encoder of SONAR.

    The pipeline's own ``predict`` makes a tokenizer a call, knows one language a call, and sorts by characters. So its
    model and its tokenizer are called here, in the same way: concepts are those of ``predict``.
    """

    _title = "SONAR"

    def __init__(
        self,
        card: str = SONAR_CARD,
        *,
        tokenizer: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_tokens: int | None = None,
    ) -> None:
        """
        :param tokenizer: Name of its card; None is the encoder's own.
        :param dtype: Of the weights; concepts are float32 whatever it is.
        :param batch_tokens: As :class:`~lexalcm.text.token_batches.BatchingEncoder` takes it.
        :raises CardError: No such card, or the card of something else.
        :raises CheckpointError: Weights or tokenizer are missing or damaged.
        :raises ConfigError: They do not fit in memory, or ``batch_tokens`` is below 1.
        :raises SetupError: The sonar-space package is missing, or does not fit.
        """
        super().__init__(device=torch.device(device), batch_tokens=batch_tokens)
        self.name = card
        self.langs = sonar_languages(tokenizer or card)
        sonar = import_companion("sonar.inference_pipelines.text", package="sonar-space")
        models = import_companion("sonar.models.sonar_text", package="sonar-space")
        # The tokenizer first: it is small, and may be missing too.
        loaded_tokenizer = load_sonar_tokenizer(tokenizer or card)
        model = load_sonar_model(card, models.SonarTextTransformerEncoderModel, device=self._device, dtype=dtype)
        self._pipeline = sonar.TextToEmbeddingModelPipeline(model, loaded_tokenizer, device=self._device, dtype=dtype)
        self._precision = sonar.precision_context(dtype)
        self._token_encoders: dict[str | None, Callable[[str], torch.Tensor]] = {}
        pooler = model.pooler
        self.dim = int(pooler.projection_out.output_dim if pooler else model.encoder_frontend.embed.embed_dim)
        positions = model.encoder_frontend.pos_encoder or model.encoder.layers[0].self_attn.pos_encoder
        self.max_tokens = positions.max_seq_len
        self._facts = {"tokenizer": tokenizer or card, "dtype": str(dtype).removeprefix("torch.")}

    def facts(self) -> dict[str, Any]:
        """What a vector depends on, as plain values."""
        return {
            "name": self.name,
            "kind": "sonar",
            "dim": self.dim,
            "max_tokens": self.max_tokens,
            **self._facts,
            "device": str(self._device),
        }

    def _tokenize(self, sentences: Sequence[str], lang: str | None, *, cut: bool = False) -> list[Sequence[int]]:
        if lang not in self._token_encoders:
            self._token_encoders[lang] = self._pipeline.tokenizer.create_encoder(lang=lang)
        read = self._token_encoders[lang]
        return [read(sentence)[: self.max_tokens if cut else None] for sentence in sentences]

    def _may_be_long(self, sentence: str) -> bool:
        # A token has at least a byte of what SentencePiece makes of the text, which may have more bytes than it.
        num_bytes = max(len(form.encode()) for form in (sentence, unicodedata.normalize("NFKC", sentence)))
        return num_bytes + _NUM_OTHER_TOKENS > self.max_tokens

    @torch.inference_mode()
    def _run(self, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        from fairseq2.nn.utils.padding import pad_seqs

        pad_idx = self._pipeline.tokenizer.vocab_info.pad_idx
        with self._precision:
            return self._pipeline.model(*pad_seqs(tokens, pad_value=pad_idx, device=self._device)).sentence_embeddings


class SonarDecoder:
    """A decoder of SONAR, which writes any of its languages."""

    def __init__(
        self,
        card: str = SONAR_DECODER_CARD,
        *,
        tokenizer: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        options: DecoderOptions | Mapping[str, Any] | None = None,
        batch_size: int = 8,
    ) -> None:
        """
        :param tokenizer: Name of its card; None is the decoder's own.
        :param options: As :func:`~lexalcm.text.decoder_options.read_decoder_options` takes them.
        :param batch_size: Concepts decoded together by beam search; sampling takes one at a time.
        :raises CardError: No such card, or the card of something else.
        :raises CheckpointError: Weights or tokenizer are missing or damaged.
        :raises ConfigError: They do not fit in memory, or a value cannot be honoured.
        :raises SetupError: The sonar-space package is missing, or does not fit.
        """
        _check_batch_size(batch_size)
        asked = options if isinstance(options, DecoderOptions) else read_decoder_options(options or {})
        self._device, self._dtype = torch.device(device), dtype
        self.name = card
        self.langs = sonar_languages(tokenizer or card)
        sonar = import_companion("sonar.inference_pipelines.text", package="sonar-space")
        models = import_companion("sonar.nn.conditional_decoder_model", package="sonar-space")
        loaded_tokenizer = load_sonar_tokenizer(tokenizer or card)
        model = load_sonar_model(card, models.ConditionalTransformerDecoderModel, device=self._device, dtype=dtype)
        self._pipeline = sonar.EmbeddingToTextModelPipeline(model, loaded_tokenizer, device=self._device, dtype=dtype)
        # What the decoder's attention reads is as wide as a concept.
        self.dim = int(model.decoder.layers[0].encoder_decoder_attn.k_proj.input_dim)
        self._used = {**asked.used(), "max_length": _max_length(asked.max_length, model.max_target_seq_len)}
        self._batch_size = batch_size if asked.top_p is None else 1

    @property
    def options(self) -> Mapping[str, Any]:
        """What shapes the text, as plain values."""
        return {**self._used, "dtype": str(self._dtype).removeprefix("torch.")}

    def decode(self, concepts_NC: np.ndarray, lang: str | None = None) -> list[DecodedSentence]:
        """One sentence a concept, in the order given. A sampled one depends on its concept and the seed, not on others.

        :param lang: To be written; must be given.
        :raises ConfigError: An unknown language, or none.
        :raises DataError: Concepts of another width than the decoder's, or that are not finite.
        """
        if lang is None:
            raise ConfigError("SONAR writes many languages: say which one, such as eng_Latn.")
        check_language(lang, self.langs)
        check_concepts(concepts_NC, self.dim, f'The decoder of card "{self.name}"')
        batches = [concepts_NC[i : i + self._batch_size] for i in range(0, len(concepts_NC), self._batch_size)]
        return [DecodedSentence(text) for batch in batches for text in self._decode_batch(batch, lang)]

    def _decode_batch(self, concepts_BC: np.ndarray, lang: str) -> list[str]:
        from fairseq2.generation.sampling import TopPSampler

        used = self._used
        passed_on = ("beam_size", "len_penalty", "temperature", "unk_penalty")
        options = {name: used[name] for name in passed_on if name in used}
        # fairseq2 counts from the source's length, which here is the width of a concept.
        options |= {"min_gen_len": used["min_length"], "max_gen_len": (0.0, used["max_length"])}
        inputs = torch.from_numpy(np.array(concepts_BC, np.float32, order="C")).to(self._device, self._dtype)
        if "top_p" not in used:
            return self._pipeline.predict(inputs, lang, batch_size=len(inputs), **options)
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(_seed_of(concepts_BC[0], used["seed"]))
            return self._pipeline.predict(inputs, lang, sampler=TopPSampler(used["top_p"]), **options)


def _max_length(asked: int | None, most: int) -> int:
    most -= _NUM_PREFIX_TOKENS
    if asked is not None and asked > most:
        raise ConfigError(f"Decoder option `max_length` is {asked}, but the decoder writes {most} tokens at most.")
    return min(_USUAL_MAX_LENGTH, most) if asked is None else asked


def _seed_of(concept_C: np.ndarray, seed: int) -> int:
    """Each concept has its own, from where its parts are largest: that is the same for concepts that differ in their
    last bits, as those do which were made in batches of another size."""
    places = [int(part.argmax()) for part in np.array_split(concept_C, min(8, len(concept_C)))]
    return int.from_bytes(hashlib.sha256(f"{seed} {places}".encode()).digest()[:7], "little")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"`batch_size` must be at least 1, but is {batch_size}.")
