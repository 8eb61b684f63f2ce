"""Sentences are split where they end, none too long, and no character is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.text.cut import cut_long
from lexalcm.text.segment import (
    CuttingSegmenter,
    NewlineSegmenter,
    PunctuationSegmenter,
    SatSegmenter,
    create_segmenter,
)
from tests.text.tiny_sat import build_tiny_sat

JAPANESE = "\u57ce\u304c\u843d\u3061\u305f\u3002\u6226\u4e89\u306f\u7d42\u308f\u3063\u305f\uff01"


@pytest.fixture(scope="module")
def sat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # What is above the model must not tell which one it is: `small` has the `sm` of another threshold.
    return build_tiny_sat(tmp_path_factory.mktemp("small") / "sat-1l")


@pytest.fixture(scope="module")
def sat(sat_folder: Path) -> SatSegmenter:
    return SatSegmenter(sat_folder)


@pytest.fixture(params=["sat", "punctuation", "newline"])
def segmenter(request: pytest.FixtureRequest, sat: SatSegmenter) -> CuttingSegmenter:
    return sat if request.param == "sat" else create_segmenter(request.param)


def test_sat_splits_at_the_ends_that_its_model_finds(sat: SatSegmenter) -> None:
    assert sat.split("Many clans fought.  A castle fell! Why?") == ["Many clans fought.", "A castle fell!", "Why?"]
    assert sat.split(JAPANESE) == [JAPANESE[:6], JAPANESE[6:]]


def test_punctuation_splits_latin_before_space_and_japanese_anywhere() -> None:
    split = PunctuationSegmenter().split
    assert split('He said "No." Then 3.14 came... And went.') == ['He said "No."', "Then 3.14 came...", "And went."]
    assert split(JAPANESE) == [JAPANESE[:6], JAPANESE[6:]]


def test_newline_splits_at_lines_alone() -> None:
    assert NewlineSegmenter().split("One. Two.\r\n\n Three. \n") == ["One. Two.", "Three."]


@pytest.mark.parametrize("text", ["", " ", "\n\t\r\n"])
def test_a_text_of_white_space_has_no_sentences(segmenter: CuttingSegmenter, text: str) -> None:
    assert segmenter.split(text) == [] and "".join(segmenter.cut(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "a.\n\nb.\r\nc.\tD",
        "  leading. trailing.  \n\n",
        "word " * 1000,
        "x" * 5000,
        "\u6226" * 700 + JAPANESE,
        "see https://example.org/" + "path/" * 60 + " there",
        "end." + " " * 600 + "after",
    ],
)
def test_no_character_is_lost_and_no_piece_is_too_long(segmenter: CuttingSegmenter, text: str) -> None:
    pieces = segmenter.cut(text)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 250
    assert all(segmenter.split(text))


@pytest.mark.parametrize(
    ("newlines", "sentences"),
    [("line", ["a", "b", "c"]), ("paragraph", ["a\nb", "c"]), ("ignore", ["a\nb\n\nc"])],
)
def test_line_breaks_end_a_sentence_as_asked(sat_folder: Path, newlines: str, sentences: list[str]) -> None:
    assert create_segmenter(sat_folder, newlines=newlines).split("a\nb\n\nc") == sentences  # type: ignore[arg-type]


def test_what_is_beside_a_text_changes_nothing(sat: SatSegmenter) -> None:
    texts = [f"Number {i} is here. " * (1 + i * 7 % 40) for i in range(12)]
    assert list(sat.split_many(texts)) == [sat.split(text) for text in reversed(texts)][::-1]


def test_a_long_text_is_split_like_a_short_one(sat: SatSegmenter) -> None:
    sentence = "Clans fought over a castle, and another was built."
    assert sat.split(" ".join([sentence] * 100)) == [sentence] * 100


def test_the_threshold_follows_the_name_of_the_model_and_can_be_set(sat_folder: Path, sat: SatSegmenter) -> None:
    assert (sat.threshold, sat.name, sat.device) == (0.025, "sat-1l", "cpu")
    # The tiny model's ends have probability 0.993.
    assert SatSegmenter(sat_folder, threshold=0.9999).split("One. Two.") == ["One. Two."]


def test_a_sat_is_loaded_from_a_folder_without_a_network(
    tmp_path: Path, sat_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    bare = build_tiny_sat(tmp_path / "sat-3l", with_tokenizer=False)
    assert SatSegmenter(bare, tokenizer=sat_folder).split("One. Two.") == ["One.", "Two."]
    with pytest.raises(CheckpointError, match="sat-3l.*xlm-roberta-base.*cannot be loaded(.|\n)*give folders"):
        SatSegmenter(bare)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        SatSegmenter(tmp_path, tokenizer=sat_folder)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("punctation", {}, 'not a known segmenter. Did you mean "punctuation"'),
        ("sat-3k", {}, 'Did you mean "sat-3l'),
        ("punctuation", {"max_length": 0}, "at least 1 character, but is 0"),
        ("punctuation", {"newlines": "lines"}, 'Did you mean "line"'),
        ("newline", {"threshold": 0.5}, 'segmenter "newline" has no threshold'),
        ("sat-3l", {"threshold": 1.5}, "between 0 and 1, but is 1.5"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_segmenter(name, **options)


def test_a_cut_falls_on_a_space_else_after_punctuation_else_where_it_must() -> None:
    assert cut_long("aaaa bbbb,cccc", 8) == ["aaaa ", "bbbb,", "cccc"]
    assert cut_long("aaaa bbbb", 8) == ["aaaa ", "bbbb"]
    assert cut_long("aaaa,bbbb", 8) == ["aaaa,", "bbbb"]
    assert cut_long("a" * 20, 8) == ["a" * 8, "a" * 8, "a" * 4]
    assert cut_long("a" * 7 + "e\u0301" * 2, 8) == ["a" * 7, "e\u0301" * 2]


def test_among_equal_places_a_cut_falls_where_an_end_is_most_likely() -> None:
    text = "aaa bbb ccc ddd"
    log_probabilities = np.full(len(text), -9.0)
    log_probabilities[6] = -1.0
    assert cut_long(text, 12) == ["aaa bbb ccc ", "ddd"]
    assert cut_long(text, 12, log_probabilities) == ["aaa bbb ", "ccc ddd"]


def test_no_more_cuts_are_made_than_needed() -> None:
    assert [len(piece) for piece in cut_long("abcd " * 60, 100)] == [100, 100, 100]
