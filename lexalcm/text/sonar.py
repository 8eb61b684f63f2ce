"""Text to concepts and back by SONAR, through sonar-space's own pipelines.

Shapes: N sentences or concepts, C dimensions.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from lexalcm.errors import ConfigError, DataError
from lexalcm.text.checks import check_concepts, has_half_character
from lexalcm.text.decoder_options import DecoderOptions, read_decoder_options
from lexalcm.text.interface import DecodedSentence
from lexalcm.text.languages import SONAR_CARD, check_language, sonar_languages
from lexalcm.text.sonar_model import load_sonar_model, load_sonar_tokenizer

SONAR_DECODER_CARD: Final = "text_sonar_basic_decoder"

_USUAL_MAX_LENGTH: Final = 256
_NUM_PREFIX_TOKENS: Final = 2
_START: Final = 60
_MOST_NAMED: Final = 3

_log = logging.getLogger(__name__)


class SonarEncoder:
    """A sentence encoder of SONAR."""

    def __init__(
        self,
        card: str = SONAR_CARD,
        *,
        tokenizer: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> None:
        """
        :param tokenizer: Name of its card; None is the encoder's own.
        :param dtype: Of the weights; concepts are float32 whatever it is.
        :param batch_size: Sentences that go through the model together.
        :raises CardError: No such card, or the card of something else.
        :raises CheckpointError: Weights or tokenizer are missing or damaged.
        :raises ConfigError: They do not fit in memory, or ``batch_size`` is below 1.
        """
        from sonar.inference_pipelines.text import TextToEmbeddingModelPipeline
        from sonar.models.sonar_text import SonarTextTransformerEncoderModel

        _check_batch_size(batch_size)
        device = torch.device(device)
        self.name = card
        self.langs = sonar_languages(tokenizer or card)
        # The tokenizer first: it is small, and may be missing too.
        loaded_tokenizer = load_sonar_tokenizer(tokenizer or card)
        model = load_sonar_model(card, SonarTextTransformerEncoderModel, device=device, dtype=dtype)
        self._pipeline = TextToEmbeddingModelPipeline(model, loaded_tokenizer, device=device, dtype=dtype)
        self._batch_size = batch_size
        pooler = model.pooler
        self.dim = int(pooler.projection_out.output_dim if pooler else model.encoder_frontend.embed.embed_dim)

    def encode(self, sentences: Sequence[str], lang: str | None = None) -> np.ndarray:
        """Returns float32 ``[N, C]``, raw. Of a sentence with more tokens than SONAR takes only the start is seen; the
        log names it.

        :param lang: Of all the sentences; None is what the tokenizer's card calls ``default_lang``, English.
        :raises ConfigError: An unknown language.
        :raises DataError: A sentence that is empty or not Unicode, or whose concept is not finite.
        """
        if lang is not None:
            check_language(lang, self.langs)
        _check_sentences(sentences)
        if not sentences:
            return np.zeros((0, self.dim), np.float32)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            concepts = self._pipeline.predict(list(sentences), lang, batch_size=self._batch_size)
        for warning in caught:
            if "length was truncated" in str(warning.message):
                self._name_truncated(sentences, lang)
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        concepts_NC = concepts.float().cpu().numpy()
        if not (finite_N := np.isfinite(concepts_NC).all(axis=1)).all():
            number = int(finite_N.argmin())
            raise DataError(
                f'SONAR gives a concept that is not finite for sentence {number}, "{_start_of(sentences[number])}". '
                f"The data type may be too narrow: take float32 or bfloat16."
            )
        return concepts_NC

    def encode_mixed(self, sentences: Sequence[str], langs: Sequence[str]) -> np.ndarray:
        """:meth:`encode` of sentences that have each a language of their own: one pass a language; rows keep their
        order."""
        if len(langs) != len(sentences):
            raise ValueError(f"There are {len(sentences)} sentences but {len(langs)} languages.")
        concepts_NC = np.zeros((len(sentences), self.dim), np.float32)
        for lang in dict.fromkeys(langs):
            rows = [i for i, other in enumerate(langs) if other == lang]
            concepts_NC[rows] = self.encode([sentences[i] for i in rows], lang)
        return concepts_NC

    def _name_truncated(self, sentences: Sequence[str], lang: str | None) -> None:
        frontend, layers = self._pipeline.model.encoder_frontend, self._pipeline.model.encoder.layers
        most = (frontend.pos_encoder or layers[0].self_attn.pos_encoder).max_seq_len
        tokenize = self._pipeline.tokenizer.create_encoder(lang=lang)
        # A token has at least a byte: most sentences need not be counted.
        long = [s for s in sentences if len(s.encode()) + _NUM_PREFIX_TOKENS >= most and len(tokenize(s)) > most]
        starts = "; ".join(f'"{_start_of(sentence)}"' for sentence in long[:_MOST_NAMED])
        _log.warning("SONAR takes %d tokens; the rest of %d sentences is cut off: %s", most, len(long), starts)


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
        """
        from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline
        from sonar.nn.conditional_decoder_model import ConditionalTransformerDecoderModel

        _check_batch_size(batch_size)
        asked = options if isinstance(options, DecoderOptions) else read_decoder_options(options or {})
        self._device, self._dtype = torch.device(device), dtype
        self.name = card
        self.langs = sonar_languages(tokenizer or card)
        loaded_tokenizer = load_sonar_tokenizer(tokenizer or card)
        model = load_sonar_model(card, ConditionalTransformerDecoderModel, device=self._device, dtype=dtype)
        self._pipeline = EmbeddingToTextModelPipeline(model, loaded_tokenizer, device=self._device, dtype=dtype)
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


def _check_sentences(sentences: Sequence[str]) -> None:
    for number, sentence in enumerate(sentences):
        if not sentence.strip():
            raise DataError(
                f"Sentence {number} of {len(sentences)} is empty. SONAR has no concept for it; leave it out."
            )
        if has_half_character(sentence):
            raise DataError(f"Sentence {number} of {len(sentences)} has half a character, and so is not Unicode text.")


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"`batch_size` must be at least 1, but is {batch_size}.")


def _start_of(sentence: str) -> str:
    return sentence if len(sentence) <= _START else f"{sentence[:_START]}..."
