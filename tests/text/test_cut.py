"""What is too long is cut where it hurts least, and nothing is lost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexalcm.text.cut import cut_long, end_of_character

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
FLAG = "\U0001f1ef\U0001f1f5"
THUMB = "\U0001f44d\U0001f3fd"
ACCENT = "e\u0301"

PARTS = [*"ab .?,(\"\n\u3002\u6226\u3000\ud83d", "  ", "\r\n", ACCENT, FAMILY, FLAG]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=60).map("".join)


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
