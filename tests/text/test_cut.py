"""What is too long is cut where it hurts least, and nothing is lost."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lexalcm.text.cut import cut_long, end_of_character
from lexalcm.text.rules import RulesSegmenter

ARTICLES = Path(__file__).parents[3] / "shared" / "text"

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
FLAG = "\U0001f1ef\U0001f1f5"
THUMB = "\U0001f44d\U0001f3fd"
ACCENT = "e\u0301"

PARTS = [*"ab .?,(\"\n\u3002\u6226\u3000\ud83d", "  ", "\r\n", ACCENT, FAMILY, FLAG]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=60).map("".join)
JOINED = [" \u0301", "\u1100", "\uac00", "\u11a8", "\u0e33", "\u0600", "\u200d", "\ude00"]
PLAIN_TEXTS = st.one_of(
    TEXTS,
    st.lists(st.sampled_from(PARTS + JOINED), max_size=60).map("".join),
    st.text("abcdefgh ,.)", max_size=200),
    st.text("\u6226\u6227\u3001\u3002\u300d", max_size=200),
)


def check_pieces(pieces: list[str], text: str, max_length: int) -> None:
    assert "".join(pieces) == text
    for piece in pieces:
        assert piece.strip() or not text.strip()
        space_alone = re.search(rf"\s{{{max_length}}}", piece) or len(piece.strip()) == 1
        assert len(piece) <= max_length or space_alone


def test_a_cut_falls_on_a_space_else_after_punctuation_else_where_it_must() -> None:
    assert cut_long("aaaa bbbb,cccc", 8) == ["aaaa ", "bbbb,", "cccc"]
    assert cut_long("aaaa bbbb", 8) == ["aaaa ", "bbbb"]
    assert cut_long("aaaa,bbbb", 8) == ["aaaa,", "bbbb"]
    assert [len(piece) for piece in cut_long("a" * 20, 8)] == [7, 7, 6]


def test_a_sentence_mark_is_a_better_place_than_a_comma_and_that_than_a_space_between_words() -> None:
    assert cut_long("aa. bb, cc dd ee", 13) == ["aa. ", "bb, cc dd ee"]
    assert cut_long('aa." bb, cc dd ee', 13) == ['aa." ', "bb, cc dd ee"]
    assert cut_long("aa bb, cc dd ee", 12) == ["aa bb, ", "cc dd ee"]


def test_pieces_are_even_where_nothing_else_decides() -> None:
    assert cut_long("aaa bbb ccc ddd", 12) == ["aaa bbb ", "ccc ddd"]


def test_among_equal_places_a_cut_falls_where_an_end_is_most_likely() -> None:
    log_probabilities = np.full(15, -9.0)
    log_probabilities[10] = -1.0
    assert cut_long("aaa bbb ccc ddd", 12, log_probabilities) == ["aaa bbb ccc ", "ddd"]


def test_no_more_cuts_are_made_than_needed() -> None:
    assert [len(piece) for piece in cut_long("abcd " * 60, 100)] == [100, 100, 100]
    assert len(cut_long("https://example.org/" + "path/" * 56, 250)) == 2


def test_space_behind_a_sentence_belongs_to_it_and_counts() -> None:
    assert cut_long("aaa bbb\n", 7) == ["aaa ", "bbb\n"]
    assert cut_long("aaa\r\n\r\n", 6) == ["aa", "a\r\n\r\n"]
    assert cut_long("  aaaa", 5) == ["  a", "aaa"]


def test_only_space_that_no_piece_can_hold_makes_one_too_long() -> None:
    assert cut_long("aa" + " " * 8 + "bb", 8) == ["aa" + " " * 8, "bb"]
    assert cut_long(" " * 9 + "aa bb", 4) == [" " * 9 + "aa ", "bb"]
    assert cut_long(" " * 9, 4) == [" " * 9]
    assert cut_long(" a b", 2) == [" a ", "b"]


@pytest.mark.parametrize("character", [FAMILY, FLAG, THUMB, ACCENT, "\ud83d\ude00", "\r\n"])
def test_what_a_reader_takes_for_one_character_stays_whole(character: str) -> None:
    text = "a" * 5 + character * 4
    pieces = cut_long(text, 5 + len(character) - 1)
    assert "".join(pieces) == text
    assert all(piece.replace(character, "").strip("a") == "" for piece in pieces)


@pytest.mark.parametrize("character", [FAMILY, FLAG, THUMB, ACCENT, "\ud83d\ude00"])
def test_the_end_of_a_character_is_found_from_within(character: str) -> None:
    text, end = f"a. {character}{character}b", 3 + len(character)
    assert {end_of_character(text, place) for place in range(4, end + 1)} == {end}
    assert [end_of_character(text, place) for place in (2, 3, len(text))] == [2, 3, len(text)]


@settings(deadline=None)
@given(TEXTS, st.integers(1, 30))
def test_pieces_join_and_keep_to_the_length(text: str, max_length: int) -> None:
    check_pieces(cut_long(text, max_length), text, max_length)


@settings(deadline=None, max_examples=300)
@given(PLAIN_TEXTS, st.integers(1, 40))
def test_cuts_are_the_best_of_all(text: str, max_length: int) -> None:
    if not re.search(rf"\s{{{max_length}}}", text) and text.strip():
        assert cut_long(text, max_length) == plain_cut(text, max_length)


@settings(deadline=None, max_examples=300)
@given(PLAIN_TEXTS, st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_cuts_after_white_space_are_the_best_with_a_model_too(text: str, max_length: int, seed: int) -> None:
    log_probabilities = -np.random.default_rng(seed).uniform(0, 9, len(text)).astype(np.float32)
    if not re.search(rf"\s{{{max_length}}}", text) and text.strip():
        best = plain_cut(text, max_length, log_probabilities)
        if all(piece[-1].isspace() for piece in best[:-1]):
            assert cut_long(text, max_length, log_probabilities) == best


def test_where_white_space_alone_will_do_no_other_place_is_taken_whatever_a_model_says() -> None:
    text = "aaaa bbbb.cccc dddd"
    log_probabilities = np.full(len(text), -20.0)
    log_probabilities[9] = 0.0
    assert cut_long(text, 10, log_probabilities) == ["aaaa ", "bbbb.cccc ", "dddd"]
    assert plain_cut(text, 10, log_probabilities) == ["aaaa bbbb.", "cccc dddd"]


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_sentences_of_articles_are_cut_as_well_as_can_be(lang: str) -> None:
    file = ARTICLES / f"wiki_{lang}.jsonl"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    sentences = [sentence for pieces in RulesSegmenter(max_length=10**6).cut_many(texts) for sentence in pieces]
    for sentence in [sentence for sentence in sentences if len(sentence) > 250][::10]:
        assert cut_long(sentence, 250) == plain_cut(sentence, 250)


@pytest.mark.parametrize("part", ["x", "\u6226", "a\u6226", "a\u0301", "word ", "ab.", "https://a.b/c "])
def test_a_text_of_any_size_is_cut(part: str) -> None:
    text = part * (200_000 // len(part))
    pieces = cut_long(text, 250)
    assert "".join(pieces) == text and 800 <= len(pieces) <= 900


def plain_cut(text: str, max_length: int, log_probabilities: np.ndarray | None = None) -> list[str]:
    """What `cut_long` promises, by looking at every place; for a text without long white space."""
    gains = plain_gains(text, log_probabilities)
    best = [0.0] + [-np.inf] * len(text)
    previous = [0] * (len(text) + 1)
    last = 0
    for end in range(len(text) - len(text.lstrip()) + 1, len(text) + 1):
        if end < len(text) and text[end].isspace():
            continue
        begins = range(end - 1, max(0, end - max_length) - 1, -1)
        scores = [best[begin] - 0.03 * ((end - begin) / max_length) ** 2 for begin in begins]
        nearest = int(np.argmax(scores))
        if scores[nearest] > -np.inf:
            previous[end], best[end] = begins[nearest], scores[nearest] + gains[end - 1]
        else:
            previous[end], best[end] = last, best[last] + gains[end - 1]
        last = end
    ends = [len(text)]
    while ends[-1] > 0:
        ends.append(previous[ends[-1]])
    ends.reverse()
    return [text[start:end] for start, end in zip(ends, ends[1:])]


def plain_gains(text: str, log_probabilities: np.ndarray | None) -> list[float]:
    gains = []
    rank, likely = 2, -np.inf
    for i, character in enumerate(text):
        category = unicodedata.category(character)
        if not character.isspace():
            closes = category in ("Pe", "Pf") or character in "\"'"
            marks = category.startswith("P") and category not in ("Ps", "Pi")
            if character in ".!?\u2026\u3002\uff01\uff1f":
                rank = 0
            elif not (rank == 0 and closes):
                rank = 1 if marks else 2
        costs = (0.0, 0.05, 0.08) if character.isspace() else (20.0, 21.0, 50.0)
        of_model = 0.0 if log_probabilities is None else max(float(log_probabilities[i]), -15.0)
        likely = max(likely, of_model) if character.isspace() else of_model
        gains.append(-1.0 + likely - costs[rank])
    for pattern in (r"\X", "[\ud800-\udbff][\udc00-\udfff]"):
        for match in regex.finditer(pattern, text):
            for i in range(match.start(), match.end() - 1):
                gains[i] -= 200.0
    return gains
