"""The configuration names the field that cannot be honoured."""

from __future__ import annotations

from typing import Any

import pytest

from lexalcm.data.filters import FilterConfig
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
        ({"hold_out_every": 0}, "`dataset.reading.hold_out_every`"),
        ({"prefetch": -1}, "`dataset.reading.prefetch`"),
        ({"shuffle": "no"}, "`dataset.reading.shuffle` must be true or false"),
        ({"concepts_per_batch": None}, "exactly one of `concepts_per_batch` and `documents_per_batch`"),
        ({"documents_per_batch": 4}, "exactly one of `concepts_per_batch` and `documents_per_batch`"),
        ({"concepts_per_batch": 64}, "must be at least `max_seq_len`"),
        ({"min_document_len": 5, "max_document_len": 4}, "`dataset.reading.max_document_len`"),
        ({"prefix": "start"}, "`dataset.reading.special_concepts`"),
        ({"target_suffix": "end"}, "`dataset.reading.special_concepts` must name the file that holds `target_suffix`"),
        ({"min_context_len": -1}, "`dataset.reading.min_context_len` must be an integer of at least 0"),
        ({"dtype": "__import__('os')"}, "`dataset.reading.dtype` must be float32 or float16"),
    ],
)
def test_a_reading_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    config = ReadingConfig(**fields)
    with pytest.raises(ConfigError, match=message):
        config.check()


def test_sources_inherit_and_are_told_apart() -> None:
    config = ConceptParquetConfig(
        sources=[SourceConfig(path="a/train/"), SourceConfig(path="b/train", text_column="t", embedding_column="e")],
        text_column="text",
    )
    first, second = config.resolved_sources()
    assert (first.name, first.text_column, first.embedding_column) == ("train", "text", config.embedding_column)
    assert (second.name, second.text_column, second.embedding_column) == ("train#1", "t", "e")


def test_names_stay_apart_even_from_given_ones() -> None:
    sources = [SourceConfig(path="a", name="x#2"), SourceConfig(path="b/x"), SourceConfig(path="c/x")]
    names = [source.name for source in ConceptParquetConfig(sources=sources).resolved_sources()]
    assert names[:2] == ["x#2", "x"] and len(set(names)) == 3


def test_filters_of_the_dataset_and_of_a_source_both_count() -> None:
    every, one = FilterConfig(column="lang", value="en"), FilterConfig(column="score", operator=">", value=1)
    config = ConceptParquetConfig(
        sources=[SourceConfig(path="a"), SourceConfig(path="b", filters=[one])], filters=[every]
    )
    assert [source.filters for source in config.resolved_sources()] == [[every], [every, one]]


def test_a_filter_that_is_wrong_in_a_source_is_found_there() -> None:
    sources = [SourceConfig(path="a"), SourceConfig(path="b", filters=["lang == en"])]  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"`sources\[1\]\.filters`.*never evaluated"):
        ConceptParquetConfig(sources=sources).resolved_sources()


def test_the_configuration_given_is_left_as_it_was() -> None:
    config = ConceptParquetConfig(sources=[SourceConfig(path="a/x"), SourceConfig(path="b/x")])
    config.resolved_sources()
    assert [(s.name, s.embedding_column) for s in config.sources] == [(None, None), (None, None)]


@pytest.mark.parametrize(
    "name",
    ["max_seq_len", "min_document_len", "max_document_len", "hold_out_every", "shuffle_window", "seed", "num_workers"],
)
@pytest.mark.parametrize("value", [-1, True, 2.0, "8", float("nan")])
def test_numbers_are_whole_and_not_below_their_least(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"`dataset.reading.{name}` must be an integer of at least"):
        ReadingConfig(**{name: value}).check()


@pytest.mark.parametrize("every", [0, 1])
def test_holding_out_every_row_is_refused(every: int) -> None:
    with pytest.raises(ConfigError, match="hold_out_every"):
        ReadingConfig(hold_out_every=every).check()


def test_defaults_can_be_honoured() -> None:
    ReadingConfig().check()
