"""Sentences by rules: abbreviations, quotes and lists of English and Japanese."""

from __future__ import annotations

import pytest

from lexalcm.text.rules import RulesSegmenter, sentencex_language

ENGLISH = [
    ["Dr. Smith met Ms. Jones of the U.S. Army, e.g. in Vol. 3.", "He left."],
    ['He said "No."', "Then 3.14 came."],
    ["That was the Party.)", "Asquith was back."],
    ["It is the best of all.\u201d", "He had one."],
    ['"You dog!" as he threw it.', "Why?"],
    ["1. We believe in peace.", "2. We hope."],
    ["A photograph of N.W.A in Compton.", "Yes!"],
]

END = "\u7d42\u308f\u308a\u3002"

JAPANESE = [
    ["\u57ce\u304c\u843d\u3061\u305f\u3002", "\u6226\u4e89\u306f\u7d42\u308f\u3063\u305f\uff01"],
    # "It is a book. It is good." he said.
    ["\u300c\u672c\u3067\u3059\u3002\u826f\u3044\u3002\u300d\u3068\u8a00\u3063\u305f\u3002", END],
    # A quote that is a sentence of its own, and a "however" that begins with the same sound as "he said".
    ["\u300c\u672c\u3067\u3059\u3002\u300d", "\u3068\u3053\u308d\u304c\u9055\u3046\u3002"],
    # A title with a mark in it, and a bracket that closes behind one.
    ["\u300e\u30d0\u30af\u30de\u30f3\u3002\u300f\u3092\u8aad\u3080\u3002", END],
    ["\u5e02\u96fb\u306f\u5ec3\u6b62\u3055\u308c\u305f\u3002\uff09\u306f\u5225\u3060\u3002", END],
    # A year begins a sentence.
    [END, "1445\u5e74\u3002", "2\u5e74\uff08\u5143\u5e74\u30023\u5e74\u306b\uff09\u3002"],
    # Yahoo! and D.C. inside a sentence.
    ["Yahoo!\u306f\u65b0\u3057\u3044\u3002", "\u672c\u90e8\u306fD.C.\u306b\u3042\u308b\u3002"],
]


@pytest.mark.parametrize("sentences", ENGLISH)
def test_english(sentences: list[str]) -> None:
    assert RulesSegmenter().split(" ".join(sentences), "eng_Latn") == sentences


@pytest.mark.parametrize("sentences", JAPANESE)
def test_japanese(sentences: list[str]) -> None:
    assert RulesSegmenter().split("".join(sentences), "jpn_Jpan") == sentences


def test_a_mark_alone_is_no_sentence() -> None:
    sentences = ["\u7d42\u308f\u308a\u3002 \u3002", "\u6b21\u3002"]
    assert RulesSegmenter().split(" ".join(sentences), "jpn_Jpan") == sentences


def test_the_language_decides_which_abbreviations_are_known() -> None:
    split = RulesSegmenter().split
    assert split("Am 3. Mai kam er z. B. an.", "deu_Latn") == ["Am 3. Mai kam er z. B. an."]
    assert split("M. Dupont est parti.", "fra_Latn") == ["M. Dupont est parti."]


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("eng_Latn", "en"),
        ("jpn_Jpan", "ja"),
        ("zho_Hans", "zh"),
        ("deu", "de"),
        ("EN-us", "en"),
        ("ace_Latn", "ace"),
        ("", "en"),
        (None, "en"),
    ],
)
def test_codes_of_sonar_are_those_of_sentencex(code: str | None, language: str) -> None:
    assert sentencex_language(code) == language


@pytest.mark.parametrize("code", [None, "", "klingon", "xx_Xxxx", "??"])
def test_a_language_without_rules_is_read_like_english_with_the_marks_of_all_scripts(code: str | None) -> None:
    assert RulesSegmenter().split("Dr. Smith went. \u6226\u3002 \u092f\u0939\u0964", code) == [
        "Dr. Smith went.",
        "\u6226\u3002",
        "\u092f\u0939\u0964",
    ]


def test_what_is_in_another_line_or_paragraph_decides_nothing() -> None:
    text = 'An open "quote.\nIt goes on. Here too.'
    assert RulesSegmenter().split(text)[1:] == ["It goes on.", "Here too."]
    assert RulesSegmenter(newlines="ignore").split("One\n\ntwo. Three.") == ["One\n\ntwo.", "Three."]


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u2009"])
def test_wide_space_before_a_full_stop_is_space(space: str) -> None:
    assert RulesSegmenter().split(f"He is J{space}. Smith went{space}. Why?", "eng_Latn")[-1] == "Why?"


def test_marks_before_the_first_word_end_no_sentence() -> None:
    assert RulesSegmenter().split("... ! ?! One. ! Two. 1. Three.") == ["... ! ?! One. !", "Two.", "1. Three."]


def test_a_number_after_a_full_width_mark_begins_a_sentence_but_not_in_a_bracket() -> None:
    inside, after = "\u5143\uff08\u5e74\u30023\u5e74\uff09", "\u5143\u5e74"
    assert RulesSegmenter().split(f"{inside}\u3002{after}\u3002", "jpn_Jpan") == [f"{inside}\u3002", f"{after}\u3002"]
    assert RulesSegmenter().split(f"{inside}{after}\u30022{after}\u3002", "jpn_Jpan")[1:] == [f"2{after}\u3002"]
