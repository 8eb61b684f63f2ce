"""Meta's datacards become datasets of ours; what cannot be honoured in them is refused by name."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from lexalcm.data.datacards import read_datacard
from lexalcm.data.filters import FilterConfig
from lexalcm.data.sources import EMBEDDING_COLUMN
from lexalcm.errors import ConfigError

FINETUNING = {
    "parquet_path": {"s3": "s3://bucket/cosmopedia"},
    "source_column": "prompt_sentences_sonar_emb",
    "source_text_column": "prompt_sentences",
    "target_column": "text_sentences_sonar_emb",
    "target_text_column": "text_sentences",
}


def test_fields_keep_their_meaning_under_our_names() -> None:
    card = read_datacard({**FINETUNING, "weight": 2}, where="card")
    config = card.config
    assert card.weight == 2.0
    assert config.path == "s3://bucket/cosmopedia"
    assert (config.embedding_column, config.text_column) == ("prompt_sentences_sonar_emb", "prompt_sentences")
    assert (config.target_column, config.target_text_column) == ("text_sentences_sonar_emb", "text_sentences")


def test_what_a_card_leaves_out_is_the_default() -> None:
    card = read_datacard({"parquet_path": "data", "target_column": None, "limit": None}, where="card")
    assert card.weight is None
    assert (card.config.path, card.config.embedding_column) == ("data", EMBEDDING_COLUMN)
    assert card.config.target_column is None


@pytest.mark.parametrize(
    ("places", "chosen"),
    [
        ({"s3": "a", "local": "b", "cluster": "c"}, "local"),
        ({"cluster": "c", "s3": "a"}, "s3"),
        ({"cluster": "c", "other": "d"}, "cluster"),
    ],
)
def test_of_several_places_the_nearest_is_read_and_told(
    places: dict[str, str], chosen: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="fairseq2"):
        assert read_datacard({"parquet_path": places}, where="card x").config.path == places[chosen]
    assert f"{chosen} is read" in caplog.text and all(name in caplog.text for name in places)


def test_a_relative_path_is_looked_for_beside_the_card_first(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    beside = read_datacard({"parquet_path": "here"}, where="card", folder=tmp_path)
    assert beside.config.path == str(tmp_path / "here")
    for path in ("there", "/abs", "s3://here"):
        assert read_datacard({"parquet_path": path}, where="card", folder=tmp_path).config.path == path


def test_filters_are_parsed_and_those_on_partitions_count_too() -> None:
    fields = {"filters": 'pc.field("lang") == "en"', "partition_filters": "pc.equal(pc.field('split'), 'train')"}
    filters = read_datacard({"parquet_path": "a", **fields}, where="card").config.filters
    assert filters == [FilterConfig(column="lang", value="en"), FilterConfig(column="split", value="train")]


@pytest.mark.parametrize("empty", [None, "", {}, "  "])
def test_a_path_that_lost_its_indentation_is_told_how_to_get_it_back(empty: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read_datacard({"parquet_path": empty, "s3": "s3://bucket/wiki", "source_column": "x"}, where="cards/x.yaml")
    told = "cards/x.yaml: `parquet_path` must be a path or a mapping of name to path, but is"
    assert str(caught.value).startswith(told)
    if empty in (None, ""):
        assert str(caught.value) == f"{told} empty. Indent `s3:` below it."


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"source_colum": "x"}, 'no field `source_colum` that a datacard knows. Did you mean "source_column"?'),
        ({"min_length_after_batching": 2}, 'Did you mean "min_length_of_sequences_after_batching"?'),
        ({"min_length_of_sequences": 2}, "`min_length_of_sequences` cannot be honoured: it is not of a card"),
        ({"len_to_wrap_long_seq": 128}, "`dataset.reading.max_seq_len`"),
        ({"source_suffix_text": "End of text."}, "name its vector in `dataset.reading.suffix`"),
        ({"target_suffix_text": "End of text."}, "`dataset.reading.target_suffix`"),
        ({"target_prefix_text": "So:"}, "`target_prefix_text` cannot be honoured"),
        ({"source_sequences": [{"text_value": "x"}]}, "`source_sequences` cannot be honoured: joining columns"),
        ({"source_quality_range": [0, 1]}, "`source_quality_range` cannot be honoured"),
        ({"limit": {"nb_files": 1}}, "`limit` cannot be honoured"),
        ({"filesystem_expr": "open('x')"}, "`filesystem_expr` cannot be honoured: it is code to run"),
        ({"weight": 0}, "`weight` must be a number above 0, but is 0"),
        ({"weight": "2"}, "`weight` must be a number above 0, but is '2'"),
        ({"weight": True}, "`weight` must be a number above 0, but is True"),
        ({"target_column": 3}, "`target_column` must be a text, but is 3"),
        ({"parquet_path": {"s3": None}}, "`parquet_path.s3` must be a text, but is None"),
        ({"parquet_path": ["a"]}, "`parquet_path` must be a path or a mapping of name to path, but is ['a']."),
        ({"filters": [["lang", "=", "en"]]}, "`filters` must be the text of an expression"),
        ({"filters": "__import__('os')"}, "card: `filters`: `__import__('os')` is not understood."),
        ({"partition_filters": "split"}, "card: `partition_filters`: `split` is not understood."),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        read_datacard({"parquet_path": "a", **fields}, where="card")
    assert len(str(caught.value).splitlines()) <= 3


def test_how_meta_reads_is_left_to_our_reader_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fairseq2"):
        read_datacard({"parquet_path": "a", "nb_parallel_fragments": 4, "split_to_row_groups": True}, where="card x")
    assert "card x: how Meta would read is left to our reader: split_to_row_groups, nb_par" in caplog.text
