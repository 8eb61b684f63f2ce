"""The configuration names the field that cannot be honoured."""

from __future__ import annotations

from typing import Any

import pytest

from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig, SourceConfig
from lexalcm.errors import ConfigError


@pytest.mark.parametrize(
    "fields, message",
    [
        ({}, "`path` or `sources`"),
        ({"path": "a", "sources": [SourceConfig(path="b")]}, "and not both"),
        ({"sources": [SourceConfig(path="a", weight=1.0), SourceConfig(path="b")]}, "all of them need a `weight`"),
        ({"sources": [SourceConfig(path="")]}, r"`sources\[0\].path`"),
        ({"sources": [SourceConfig(path="a", weight=0.0)]}, r"`sources\[0\].weight` must be a number above 0"),
        ({"sources": [SourceConfig(path="a", weight=float("nan"))]}, r"`sources\[0\].weight`"),
        ({"path": "a", "concept_dim": 0}, "`concept_dim`"),
        ({"path": "a", "on_bad_rows": "drop"}, "`on_bad_rows` must be error or skip"),
        ({"path": "a", "max_bad_share": 1.5}, "`max_bad_share`"),
        ({"path": "a", "filters": [{"column": "x"}]}, "`filters`"),
    ],
)
def test_a_dataset_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConceptParquetConfig(**fields).resolved_sources()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"max_seq_len": 0}, "`dataset.reading.max_seq_len`"),
        ({"max_seq_len": 3.9}, "`dataset.reading.max_seq_len` must be an integer"),
        ({"seed": True}, "`dataset.reading.seed` must be an integer"),
        ({"prefetch": -1}, "`dataset.reading.prefetch`"),
        ({"shuffle": "no"}, "`dataset.reading.shuffle` must be true or false"),
        ({"concepts_per_batch": None}, "exactly one of `concepts_per_batch` and `documents_per_batch`"),
        ({"documents_per_batch": 4}, "exactly one of `concepts_per_batch` and `documents_per_batch`"),
        ({"concepts_per_batch": 64}, "must be at least `max_seq_len`"),
        ({"min_document_len": 5, "max_document_len": 4}, "`dataset.reading.max_document_len`"),
        ({"prefix": "start"}, "`dataset.reading.special_concepts`"),
        ({"dtype": "__import__('os')"}, "`dataset.reading.dtype` must be float32 or float16"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    config = ReadingConfig(**fields)
    with pytest.raises(ConfigError, match=message):
        getattr(config, "check")()


def test_sources_inherit_and_are_told_apart() -> None:
    config = ConceptParquetConfig(
        sources=[SourceConfig(path="a/train/"), SourceConfig(path="b/train", text_column="t", embedding_column="e")],
        text_column="text",
    )
    first, second = config.resolved_sources()
    assert (first.name, first.text_column, first.embedding_column) == ("train", "text", config.embedding_column)
    assert (second.name, second.text_column, second.embedding_column) == ("train#1", "t", "e")
