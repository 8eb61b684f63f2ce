"""A segmenter and an encoder whose every number can be foretold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lexalcm.pipelines.prepare.config import PrepareConfig
from lexalcm.pipelines.prepare.inputs import InputConfig
from lexalcm.pipelines.prepare.mapper import DocumentMapper
from lexalcm.pipelines.prepare.output_schema import OutputSchema
from lexalcm.pipelines.prepare.row_languages import LanguageRule
from lexalcm.text.segment import create_segmenter

LANGS = ("eng_Latn", "jpn_Jpan")


class CountingEncoder:
    """A concept is (number of characters, number of the language, 1); more than ``max_tokens`` characters are too
    many."""

    name = "counting"
    dim = 3
    langs: Sequence[str] | None = LANGS

    def __init__(self, max_tokens: int | None = None) -> None:
        self.max_tokens = max_tokens

    def encode_mixed(self, sentences: Sequence[str], langs: Sequence[str]) -> np.ndarray:
        rows = [(len(s), LANGS.index(lang), 1) for s, lang in zip(sentences, langs, strict=True)]
        return np.array(rows, np.float32).reshape(-1, self.dim)

    def over_limit(self, sentences: Sequence[str], langs: Sequence[str]) -> np.ndarray:
        return np.array([self.max_tokens is not None and len(s) > self.max_tokens for s in sentences], dtype=bool)

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "dim": self.dim}


def raw_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Documents as a shard hands them out."""
    placed = [{"id": f"d{i}", **row, "__row": i, "__place": f"raw.jsonl:{i + 1}"} for i, row in enumerate(rows)]
    return pa.Table.from_pylist(placed)


def mapper(
    raw: pa.Table, *, columns: tuple[str, ...] = ("text",), max_tokens: int | None = None, **fields: Any
) -> DocumentMapper:
    """:param fields: Of :class:`PrepareConfig`, and of its input by the names that input has."""
    inputs = {name: fields.pop(name) for name in ("lang_column", "split_column") if name in fields}
    split_column = inputs.get("split_column")
    config = PrepareConfig(
        inputs=InputConfig(paths=("raw.jsonl",), text_columns=columns, **inputs),
        **{"segmenter": "punctuation", "dtype": "float32", "lang": "eng_Latn", "validation_share": 0.0, **fields},
    )
    encoder = CountingEncoder(max_tokens)
    languages = LanguageRule(default=config.lang, unknown=config.unknown_lang, known=LANGS)
    schema = OutputSchema(config, raw.schema, encoder.dim, split_column=split_column)
    return DocumentMapper(
        config, schema, create_segmenter(config.segmenter, max_length=config.segment_length), encoder, languages
    )
