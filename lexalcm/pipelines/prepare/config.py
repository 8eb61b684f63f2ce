"""What decides the output of ``prepare``: input, languages, sentences, concepts, splits.

Device, workers and launcher decide nothing but the time, and are not here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit, urlunsplit

from lexalcm.data.sources import EMBEDDING_COLUMN
from lexalcm.data.split_by_id import VALIDATION_SHARE, shares_of_splits
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import ConfigError, unknown_name
from lexalcm.pipelines.prepare.inputs import InputConfig
from lexalcm.text.encoders import check_encoder
from lexalcm.text.segment import DEFAULT_SEGMENTER, MAX_LENGTH, WITHOUT_MODEL, Backend, Newlines, check_segmenter

StoredType = Literal["float16", "float32"]
WeightType = Literal["float32", "bfloat16", "float16"]
UnknownLang = Literal["error", "default", "drop"]
TooLong = Literal["flag", "refuse"]

PROMPT_COLUMN: Final = "prompt_sentences"
"""Sentences of the source, in supervised data, as Meta's fine-tuning card calls them."""

LANG_COLUMN: Final = "lang"
LANG_RULE_COLUMN: Final = "lang_rule"
"""How a row came to its language: ``given``, ``mapped`` from another spelling, or ``default``."""

LANG_GIVEN_COLUMN: Final = "lang_given"
"""What the input said, where its column is called ``lang`` too."""


@dataclass(frozen=True)
class TextRole:
    """One column of text and what becomes of it."""

    column: str
    """Of the input."""

    sentences: str
    """Of the output: list of texts."""

    @property
    def concepts(self) -> str:
        """Of the output: list of vectors."""
        return EMBEDDING_COLUMN if self.sentences == TEXT_COLUMN else f"{self.sentences}_sonar_emb"

    @property
    def truncated(self) -> str:
        """Of the output: numbers of the sentences of which the encoder saw the start alone."""
        return f"{self.sentences}_truncated"


@dataclass(kw_only=True)
class PrepareConfig:
    """The same configuration and input give the same documents, whatever runs them."""

    inputs: InputConfig
    """With one text column, or two: of prompts and of answers."""

    lang: str | None = None
    """Language of rows that name none; ``None``: such a row is one of an unknown language."""

    unknown_lang: UnknownLang = "error"
    """What a row does whose language is missing or not known: stop with its place, take ``lang``, or be left out."""

    segmenter: str = DEFAULT_SEGMENTER
    """``rules``, ``punctuation``, ``newline``, or a SaT: a name of the hub or a folder."""

    segmenter_backend: Backend = "torch"
    """What runs SaT."""

    segmenter_threshold: float | None = None
    """A sentence ends where SaT's probability is higher; ``None``: the usual one of the model."""

    segment_length: int = MAX_LENGTH
    """At most so many characters a sentence."""

    newlines: Newlines = "line"
    """Where a sentence ends too: at each ``line`` break, at each empty line (``paragraph``), or at neither."""

    encoder: str = "sonar"
    """``sonar``, ``sonar:CARD``, ``hf:FOLDER`` or ``stand_in``."""

    tokenizer_card: str | None = None
    """Of SONAR; ``None``: the encoder's own."""

    pooling: str | None = None
    """Of a Hugging Face encoder; ``None``: what its folder says, else the mean."""

    dim: int | None = None
    """Width of the stand-in's vectors."""

    encoder_dtype: WeightType = "float32"
    """Of the encoder's weights."""

    batch_tokens: int | None = None
    """Tokens that go through the encoder together; ``None``: what suits the device."""

    dtype: StoredType = "float16"
    """Of stored vectors. Half keeps 11 bits of every component, more than the encoder's own noise under bfloat16, at half
    of the disk and of what a reader must move."""

    too_long: TooLong = "flag"
    """What a sentence of more tokens than the encoder takes does: its row names it, or the work stops there."""

    validation_share: float | None = None
    """Of documents, drawn by the hash of their id where the input names no splits; ``None``: 0.05."""

    test_share: float | None = None
    """``None``: none."""

    split_seed: int | None = None
    """Another one draws other splits; ``None``: 0."""

    @property
    def roles(self) -> tuple[TextRole, ...]:
        """One text column is the document; of two, the first is the source and the second the target."""
        columns = self.inputs.text_columns
        if len(columns) == 1:
            return (TextRole(columns[0], TEXT_COLUMN),)
        return (TextRole(columns[0], PROMPT_COLUMN), TextRole(columns[1], TEXT_COLUMN))

    @property
    def shares(self) -> dict[str, float]:
        share = VALIDATION_SHARE if self.validation_share is None else self.validation_share
        return shares_of_splits(validation=share, test=self.test_share or 0.0)

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured, or does not go with another."""
        self.inputs.check()
        for name, value, known in (
            ("unknown_lang", self.unknown_lang, get_args(UnknownLang)),
            ("segmenter_backend", self.segmenter_backend, get_args(Backend)),
            ("newlines", self.newlines, get_args(Newlines)),
            ("encoder_dtype", self.encoder_dtype, get_args(WeightType)),
            ("dtype", self.dtype, get_args(StoredType)),
            ("too_long", self.too_long, get_args(TooLong)),
        ):
            if value not in known:
                raise ConfigError(f"`{name}`: {unknown_name(name, str(value), known)}")
        check_segmenter(self.segmenter, threshold=self.segmenter_threshold, backend=self.segmenter_backend)
        check_encoder(
            self.encoder, dtype=self.encoder_dtype, dim=self.dim, tokenizer=self.tokenizer_card, pooling=self.pooling
        )
        if self.segmenter == "newline" and self.newlines != "line":
            raise ConfigError("`newlines` is for the other segmenters: newline ends a sentence at each line.")
        if self.lang is None and self.inputs.lang_column is None:
            raise ConfigError(
                "Nothing says which language the documents are in: name the column that does (--lang-column lang), or the "
                "language of all (--lang eng_Latn)."
            )
        if self.unknown_lang == "default" and self.lang is None:
            raise ConfigError("`unknown_lang` default needs `lang`, the language to take (--lang).")
        if self.segment_length < 1:
            raise ConfigError(f"`segment_length` must be at least 1, but is {self.segment_length}.")
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise ConfigError(f"`batch_tokens` must be at least 1, but is {self.batch_tokens}.")
        if self.batch_tokens is not None and self.encoder.partition(":")[0] == "stand_in":
            raise ConfigError("`batch_tokens` is for encoders that have tokens; the stand-in has none.")
        if self.split_seed is not None and not 0 <= self.split_seed < 2**63:
            raise ConfigError(f"`split_seed` must be from 0 to 2^63 - 1, but is {self.split_seed}.")
        _ = self.shares

    def settings(self) -> dict[str, Any]:
        """What the output depends on by field, as JSON gives it back."""
        fields = asdict(self)
        inputs = fields.pop("inputs")
        inputs["paths"] = [without_secrets(_resolved(path)) for path in self.inputs.paths]
        segmenter = self.segmenter if self.segmenter in WITHOUT_MODEL else _resolved(self.segmenter)
        kind, _, folder = self.encoder.partition(":")
        encoder = f"{kind}:{_resolved(folder)}" if kind == "hf" else self.encoder
        return json.loads(json.dumps({**inputs, **fields, "segmenter": segmenter, "encoder": encoder}))


def read_settings(settings: Mapping[str, Any]) -> PrepareConfig:
    """The configuration of :meth:`PrepareConfig.settings`, as a worker on another machine reads it."""
    return PrepareConfig(inputs=InputConfig(**_fields_of(InputConfig, settings)), **_fields_of(PrepareConfig, settings))


def _fields_of(kls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of the settings is a field of ``kls``; JSON has lists for tuples."""
    names = (name for name in kls.__dataclass_fields__ if name in settings)
    return {name: tuple(value) if isinstance(value := settings[name], list) else value for name in names}


def _resolved(name: str) -> str:
    """A file or folder by its whole path: a command may be repeated, and workers run, in another directory."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def without_secrets(path: str) -> str:
    """A URL as it may be told: without who asks for it, and without the signature behind it."""
    parts = urlsplit(path)
    if not parts.scheme or "://" not in path:
        return path
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
