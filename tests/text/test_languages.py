"""An unknown language is refused before any model loads, with the code that was meant; other spellings are mapped."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexalcm.errors import CardError, ConfigError
from lexalcm.text.languages import _CODES, check_language, resolve_language, sonar_languages
from tests.text.tiny_sonar import ENCODER, LANGS

pytestmark = pytest.mark.usefixtures("sonar_cards")


def test_languages_are_read_from_the_card_alone(sonar_cards: Path) -> None:
    assert sonar_languages(ENCODER) == sorted(LANGS)
    known = sonar_languages()
    assert len(known) == 202 and {"eng_Latn", "jpn_Jpan"} <= set(known)


def test_a_known_language_passes() -> None:
    check_language("jpn_Jpan", LANGS)


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("en", "eng_Latn"),
        ("English", "eng_Latn"),
        ("en-US", "eng_Latn"),
        ("ja", "jpn_Jpan"),
        ("jpn", "jpn_Jpan"),
        ("jpn_Latn", "jpn_Jpan"),
        ("ENG_LATN", "eng_Latn"),
        ("engg_Latn", "eng_Latn"),
    ],
)
def test_an_unknown_language_is_refused_with_the_one_that_was_meant(code: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f'"{code}" is not a known language. Did you mean "{meant}"'):
        check_language(code, LANGS)


def test_the_refusal_says_how_to_list_all() -> None:
    with pytest.raises(ConfigError, match="List all 5 with: fairseq2 lcm generate --list-languages") as refused:
        check_language("tlh", LANGS)
    assert "Did you mean" not in str(refused.value)


def test_names_of_everyday_use_stand_for_languages_of_sonar() -> None:
    assert set(_CODES.values()) <= set(sonar_languages())


@pytest.mark.parametrize(
    ("code", "resolved"),
    [
        ("eng_Latn", "eng_Latn"),
        ("EN", "eng_Latn"),
        ("en-US", "eng_Latn"),
        ("en_GB", "eng_Latn"),
        ("es-419", "spa_Latn"),
        ("jpn-Jpan", "jpn_Jpan"),
        ("JPN_JPAN", "jpn_Jpan"),
        (" Japanese ", "jpn_Jpan"),
        ("jpn", "jpn_Jpan"),
        ("ger", "deu_Latn"),
        ("zh", "zho_Hans"),
        ("zh-TW", "zho_Hant"),
        ("zh-Hant-HK", "zho_Hant"),
        ("ko-Kore", "kor_Hang"),
    ],
)
def test_a_language_spelt_otherwise_is_mapped(code: str, resolved: str) -> None:
    assert resolve_language(code, sonar_languages()) == resolved


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (None, "nothing"),
        ("", "nothing"),
        (" ", "nothing"),
        ("tlh", "not among the known"),
        ("engg_Latn", "near is not enough"),
        ("english_or_so", "a name and more"),
        ("simple", "no language"),
        ("en-x-foo", "of private use"),
        ("zh-classical", "another language than zh"),
        ("ace", "written in two scripts"),
        ("sr-Latn", "another script"),
        ("jpn_Latn", "another script"),
        ("pa-PK", "another script by its region"),
    ],
)
def test_a_language_is_never_guessed(code: str | None, why: str) -> None:
    assert resolve_language(code, sonar_languages()) is None, why


def test_a_language_that_the_encoder_does_not_know_is_none() -> None:
    assert resolve_language("sv", sonar_languages()) == "swe_Latn"
    assert resolve_language("sv", LANGS) is None


def test_a_card_without_languages_is_refused() -> None:
    with pytest.raises(CardError, match='no card "tiny_sonar_encodr". Did you mean "tiny_sonar_encoder"'):
        sonar_languages("tiny_sonar_encodr")
    with pytest.raises(CardError, match="pre1"):
        sonar_languages("lexalcm_pre1")
