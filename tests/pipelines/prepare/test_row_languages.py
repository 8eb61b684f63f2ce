"""Every row has a language by one rule, which its row tells."""

from __future__ import annotations

import pytest

from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.row_languages import LanguageRule, RowLanguage

KNOWN = ("eng_Latn", "jpn_Jpan")


def rule(default: str | None = None, unknown: str = "error", known: tuple[str, ...] | None = KNOWN) -> LanguageRule:
    return LanguageRule(default=default, unknown=unknown, known=known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given, code, how",
    [
        ("eng_Latn", "eng_Latn", "given"),
        ("en", "eng_Latn", "mapped"),
        ("Japanese", "jpn_Jpan", "mapped"),
        (" jpn_Jpan ", "jpn_Jpan", "given"),
        (None, "eng_Latn", "default"),
        ("", "eng_Latn", "default"),
        ("  ", "eng_Latn", "default"),
    ],
)
def test_a_language_is_given_mapped_or_the_default(given: str | None, code: str, how: str) -> None:
    assert rule(default="eng_Latn").of(given, "f:1") == RowLanguage(code, how)


def test_a_row_without_a_language_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"wiki.jsonl:7 names no language.*--lang eng_Latn.*--unknown-lang drop"):
        rule().of(None, "wiki.jsonl:7")


def test_a_language_that_nobody_knows_is_an_error_even_where_there_is_a_default() -> None:
    with pytest.raises(DataError, match='f:1: "xx_Klingon" is not a known language'):
        rule(default="eng_Latn").of("xx_Klingon", "f:1")
    with pytest.raises(DataError, match='Did you mean "jpn_Jpan"'):
        rule().of("jpn_Japn", "f:1")


def test_unknown_languages_can_be_left_out_or_take_the_default() -> None:
    assert rule(unknown="drop").of("xx", "f:1") is None
    assert rule(unknown="drop").of(None, "f:1") is None
    assert rule(default="jpn_Jpan", unknown="default").of("xx", "f:1") == RowLanguage("jpn_Jpan", "default")


def test_an_encoder_without_languages_takes_what_is_not_empty() -> None:
    assert rule(known=None).of("xx", "f:1") == RowLanguage("xx", "given")
    assert rule(known=None).of("en", "f:1") == RowLanguage("eng_Latn", "mapped")
