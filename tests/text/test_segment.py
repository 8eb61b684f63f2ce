"""Sentences are split where they end, none too long, and no character is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.text.cutting import CuttingSegmenter, Ends
from lexalcm.text.segment import (
    Newlines,
    NewlineSegmenter,
    PunctuationSegmenter,
    SatSegmenter,
    create_segmenter,
)
from tests.text.test_cut import FAMILY, TEXTS, check_pieces
from tests.text.tiny_sat import build_tiny_sat

JAPANESE = "\u57ce\u304c\u843d\u3061\u305f\u3002\u6226\u4e89\u306f\u7d42\u308f\u3063\u305f\uff01"


@pytest.fixture(scope="module")
def sat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # What is above the model must not tell which one it is: `small` has the `sm` of another threshold.
    return build_tiny_sat(tmp_path_factory.mktemp("small") / "sat-1l")


@pytest.fixture(scope="module")
def sat(sat_folder: Path) -> SatSegmenter:
    return SatSegmenter(sat_folder)


@pytest.fixture(params=["sat", "rules", "punctuation", "newline"])
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
        "a" * 249 + ".\n",
        "\n" * 300 + "a. b",
    ],
)
def test_no_character_is_lost_and_no_piece_is_too_long(segmenter: CuttingSegmenter, text: str) -> None:
    check_pieces(segmenter.cut(text), text, 250)


@pytest.mark.parametrize("newlines", ["line", "paragraph", "ignore"])
@pytest.mark.parametrize("name", ["sat", "rules", "punctuation"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_any_text_is_cut_into_what_joins_to_it(sat: SatSegmenter, name: str, newlines: Newlines, text: str) -> None:
    segmenter = sat if name == "sat" else create_segmenter(name, max_length=8, newlines=newlines)
    check_pieces(segmenter.cut(text), text, segmenter.max_length)
    assert segmenter.cut_many(["One. Two.", text, text])[1:] == [segmenter.cut(text)] * 2


def test_one_word_is_one_piece(segmenter: CuttingSegmenter) -> None:
    url = "https://example.org/" + "path/" * 56
    for text in ("Hello", "城", FAMILY, url[:250]):
        assert segmenter.cut(text) == [text]
    assert len(segmenter.cut(url)) == 2


def test_a_sentence_of_the_full_length_makes_room_for_its_line_break(segmenter: CuttingSegmenter) -> None:
    sentence = "word " * 49 + "word."
    assert len(sentence) == 250
    assert [len(piece) for piece in segmenter.cut(sentence + "\r\nNext.")] == [125, 127, 5]


@pytest.mark.parametrize(
    ("newlines", "sentences"),
    [("line", ["a", "b", "c"]), ("paragraph", ["a\nb", "c"]), ("ignore", ["a\nb\n\nc"])],
)
def test_line_breaks_end_a_sentence_as_asked(sat_folder: Path, newlines: str, sentences: list[str]) -> None:
    assert create_segmenter(sat_folder, newlines=newlines).split("a\nb\n\nc") == sentences  # type: ignore[arg-type]


def test_windows_line_breaks_are_one_each(segmenter: CuttingSegmenter) -> None:
    text = "One\r\ntwo\r\n\r\nthree"
    assert segmenter.cut(text) == ["One\r\n", "two\r\n\r\n", "three"]
    assert create_segmenter("punctuation", newlines="paragraph").cut(text) == ["One\r\ntwo\r\n\r\n", "three"]


class EveryCharacter(CuttingSegmenter):
    """Ends a sentence behind each."""

    name = kind = "every"

    def _find_ends(self, texts: Sequence[str], langs: Sequence[str | None]) -> Iterator[Ends]:
        for text in texts:
            yield set(range(len(text))), None


def test_no_sentence_ends_within_an_address() -> None:
    cut = EveryCharacter().cut
    assert cut("a h_p://b.c/d?e www.f.g hi") == ["a ", "h_p://b.c/d?e ", "www.f.g ", "h", "i"]
    assert cut("://a xwww.b c:d") == [":", "/", "/", "a ", "x", "www.b ", "c", ":", "d"]
    # What is written without spaces belongs to the word before the colon, but not what another address ends in.
    assert cut("\u6226a://b\u6226c://d\u6226") == ["\u6226a://b", "\u6226c://d", "\u6226"]


@pytest.mark.parametrize("newlines", ["line", "ignore"])
@pytest.mark.parametrize("name", ["rules", "punctuation"])
@pytest.mark.parametrize("part", ["x", "\u6226", "\n", ". ", "\u6226\u30025", "See http://a.bc/d?e! Then www.x.y. "])
def test_a_document_of_any_size_is_cut(name: str, newlines: Newlines, part: str) -> None:
    # To look at all of it for each part of it would take minutes here, and hours for a book.
    text = "a" + part * (200_000 // len(part))
    assert "".join(create_segmenter(name, newlines=newlines).cut(text)) == text


def test_what_is_beside_a_text_changes_nothing(sat: SatSegmenter) -> None:
    texts = [f"Number {i} is here. " * (1 + i * 7 % 40) for i in range(12)]
    assert sat.cut_many(texts) == [sat.cut(text) for text in reversed(texts)][::-1]


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
    with pytest.raises(CheckpointError, match="sat-3l.*xlm-roberta-base.*cannot be loaded(.|\n)*give a folder"):
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
        ("rules", {"backend": "onnx", "batch_size": 4}, 'segmenter "rules" has no batch_size and no backend'),
        ("sat-3l", {"backend": "onx"}, 'Did you mean "onnx"'),
        ("sat-3l", {"batch_size": 0}, "at least 1 window, but is 0"),
        ("sat-3l", {"threshold": 1.5}, "between 0 and 1, but is 1.5"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_segmenter(name, **options)


def test_facts_tell_what_shapes_the_sentences() -> None:
    facts = create_segmenter("rules", max_length=100, newlines="paragraph").facts()
    assert facts.pop("library").startswith("sentencex ")
    assert facts == {
        "name": "rules",
        "kind": "rules",
        "device": None,
        "threshold": None,
        "max_length": 100,
        "newlines": "paragraph",
        "backend": None,
    }


def test_each_text_has_a_language_or_none_has() -> None:
    with pytest.raises(ValueError, match="2 texts but 1 languages"):
        create_segmenter("rules").cut_many(["a", "b"], ["eng_Latn"])
