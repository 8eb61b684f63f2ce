"""Which segmenter, encoder and decoder stand around a model, checked before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import torch

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.text.decoder_options import read_decoder_options
from lexalcm.text.encoders import check_encoder, create_encoder
from lexalcm.text.interface import ConceptDecoder, Segmenter, SentenceEncoder
from lexalcm.text.languages import SONAR_CARD, check_language, sonar_languages
from lexalcm.text.segment import (
    DEFAULT_SEGMENTER,
    MAX_LENGTH,
    SAT_NAMES,
    WITHOUT_MODEL,
    Backend,
    Newlines,
    create_segmenter,
)
from lexalcm.text.sonar import SONAR_DECODER_CARD, SonarDecoder, SonarEncoder
from lexalcm.text.stand_in_encoder import StandInEncoder

SEGMENTERS: Final = ("sat", *WITHOUT_MODEL)
ENCODERS: Final = ("sonar", "stand_in", "hf")
DECODERS: Final = ("sonar", "nearest", "none")
CORPUS_SENTENCES: Final = 100_000


@dataclass(kw_only=True)
class TextConfig:
    """From text to concepts and back."""

    lang: str = "eng_Latn"
    """Of prompts that name none."""

    target_langs: tuple[str, ...] = ()
    """What to write of each continuation; empty: the prompt's own language."""

    segmenter: str = "sat"
    """``sat`` or one of its models by name, ``rules``, ``punctuation`` or ``newline``."""

    segmenter_path: str | None = None
    """A folder with SaT's model and tokenizer; for ``sat`` alone."""

    segment_length: int = MAX_LENGTH
    """At most so many characters a sentence; longer ones are cut, between words where there are any."""

    newlines: Newlines = "line"
    """Where a sentence ends too, for the segmenters other than ``newline``: at each ``line`` break, at each empty line
    (``paragraph``), or at neither (``ignore``)."""

    segmenter_backend: Backend = "torch"
    """What runs SaT: ``torch`` or ``onnx``."""

    segmenter_threshold: float | None = None
    """A sentence ends where SaT's probability is higher; ``None``: the usual one of the model."""

    encoder: str = "sonar"
    """``sonar``; ``stand_in`` as for the demo data; or ``hf:FOLDER``, an encoder of Hugging Face's."""

    encoder_card: str = SONAR_CARD

    tokenizer_card: str | None = None
    """Of SONAR's encoder and decoder; ``None``: those that their cards name."""

    decoder: str = "sonar"
    """``sonar``; ``nearest``, which shows the nearest sentence of ``corpus``; or ``none``."""

    decoder_card: str = SONAR_DECODER_CARD

    decoder_options: Mapping[str, Any] = field(default_factory=dict)
    """Of SONAR's decoder, say ``beam_size``."""

    corpus: str | None = None
    """The dataset whose sentences ``nearest`` knows."""

    corpus_sentences: int = CORPUS_SENTENCES
    """How many of them, from its start."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured, or does not go with another."""
        for name, value, known in (
            ("segmenter", self.segmenter, (*SEGMENTERS, *SAT_NAMES)),
            ("segmenter_backend", self.segmenter_backend, get_args(Backend)),
            ("encoder", self.encoder.partition(":")[0], ENCODERS),
            ("decoder", self.decoder, DECODERS),
            ("newlines", self.newlines, get_args(Newlines)),
        ):
            if value not in known:
                raise ConfigError(f"`{name}`: {unknown_name(name, str(value), known)}")
        if self.segmenter == "newline" and self.newlines != "line":
            raise ConfigError("`newlines` is for the other segmenters: newline ends a sentence at each line.")
        if self.segmenter_threshold is not None:
            if self.segmenter in WITHOUT_MODEL:
                raise ConfigError(f"`segmenter_threshold` is for SaT, not for {self.segmenter}.")
            if not 0.0 < self.segmenter_threshold < 1.0:
                raise ConfigError(
                    f"`segmenter_threshold` is a probability between 0 and 1, but is {self.segmenter_threshold}."
                )
        if self.tokenizer_card is not None and "sonar" not in (self.encoder, self.decoder):
            raise ConfigError("`tokenizer_card` is for SONAR, which neither encodes nor decodes here.")
        if self.corpus_sentences != CORPUS_SENTENCES and self.decoder != "nearest":
            raise ConfigError(f"`corpus_sentences` is for the decoder nearest, not for {self.decoder}.")
        if self.segment_length < 1:
            raise ConfigError(f"`segment_length` must be at least 1, but is {self.segment_length}.")
        if self.segmenter_path is not None and self.segmenter != "sat":
            raise ConfigError(f"`segmenter_path` is for the segmenter sat, not for {self.segmenter}.")
        if self.segmenter_path is not None and not Path(self.segmenter_path).is_dir():
            raise ConfigError(f"`segmenter_path` must be a folder with a SaT model, but {self.segmenter_path} is none.")
        if self.encoder != "sonar" and self.encoder_card != SONAR_CARD:
            raise ConfigError(f"`encoder_card` is for SONAR, not for {self.encoder}.")
        if self.decoder != "sonar":
            if self.decoder_options or self.decoder_card != SONAR_DECODER_CARD:
                raise ConfigError(f"`decoder_options` and `decoder_card` are for SONAR, not for {self.decoder}.")
            if self.target_langs:
                raise ConfigError(f"`target_langs` are for a decoder that writes, but the decoder is {self.decoder}.")
        if self.segmenter_backend != "torch" and self.segmenter in WITHOUT_MODEL:
            raise ConfigError(f"`segmenter_backend` is for SaT, not for {self.segmenter}.")
        if self.encoder != "sonar":
            check_encoder(self.encoder)
        read_decoder_options(self.decoder_options)
        if (self.corpus is not None) != (self.decoder == "nearest"):
            raise ConfigError("The decoder nearest needs `corpus`, the dataset of what it knows; others have none.")
        if self.corpus_sentences < 1:
            raise ConfigError(f"`corpus_sentences` must be at least 1, but is {self.corpus_sentences}.")

    def check_languages(self, *, encoded: Mapping[str | None, str], prompts: Mapping[str | None, str]) -> None:
        """Checks the languages that SONAR will be asked for, by its cards; nothing is loaded.

        :param encoded: Of the prompts that are to be encoded, ``None`` for those that name none, each with its place.
        :param prompts: Of all prompts, in which they are continued where no language is asked for.
        :raises ConfigError: SONAR does not know one; the text has near matches.
        """
        if self.encoder == "sonar":
            self._check_all(encoded, self.tokenizer_card or self.encoder_card)
        if self.decoder == "sonar":
            written = dict.fromkeys(self.target_langs, "`target_langs`") or prompts
            self._check_all(written, self.tokenizer_card or self.decoder_card)

    def _check_all(self, langs: Mapping[str | None, str], card: str) -> None:
        known = sonar_languages(card)
        for lang, where in langs.items():
            try:
                check_language(lang or self.lang, known)
            except ConfigError as ex:
                raise ConfigError(f"{where if lang else '`lang`'}: {ex}") from None


def load_segmenter(config: TextConfig, device: torch.device) -> Segmenter:
    """:raises ConfigError: The segmenter is not there."""
    name = (config.segmenter_path or DEFAULT_SEGMENTER) if config.segmenter == "sat" else config.segmenter
    return create_segmenter(
        name,
        device=str(device),
        max_length=config.segment_length,
        threshold=config.segmenter_threshold,
        newlines=config.newlines,
        backend=config.segmenter_backend,
    )


def load_encoder(config: TextConfig, device: torch.device, dtype: torch.dtype, concept_dim: int) -> SentenceEncoder:
    """:param concept_dim: Of the model; the stand-in can make any."""
    if config.encoder == "stand_in":
        return StandInEncoder(concept_dim)
    if config.encoder != "sonar":
        return create_encoder(config.encoder, device=str(device), dtype=str(dtype).removeprefix("torch."))
    return SonarEncoder(config.encoder_card, tokenizer=config.tokenizer_card, device=device, dtype=dtype)


def load_sonar_decoder(config: TextConfig, device: torch.device, dtype: torch.dtype) -> ConceptDecoder:
    """:raises ConfigError: The decoder is not there, or does not know an option."""
    return SonarDecoder(
        config.decoder_card, tokenizer=config.tokenizer_card, device=device, dtype=dtype, options=config.decoder_options
    )
