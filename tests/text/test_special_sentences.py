"""The sentences behind special concepts: those that ship, and a user's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexalcm.errors import CardError, ConfigError, LexalcmError
from lexalcm.text.special_sentences import (
    choose_special_sentences,
    read_special_sentences,
    shipped_special_sentences,
)

MINE = """
sentences:
  start: {eng_Latn: "It begins.", fra_Latn: "Cela commence."}
  end: {eng_Latn: "It ends."}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"


def test_every_role_ships_in_english_and_japanese_in_words_of_its_own() -> None:
    sentences = read_special_sentences(shipped_special_sentences())
    assert list(sentences) == ["start_of_text", "end_of_text", "pad", "system", "tool", "ai", "user"]
    assert all(list(by_lang) == ["eng_Latn", "jpn_Jpan"] for by_lang in sentences.values())
    texts = [text for by_lang in sentences.values() for text in by_lang.values()]
    assert len(set(texts)) == 14
    assert sentences["start_of_text"]["eng_Latn"] == "[[Start of text.]]"
    assert sentences["end_of_text"]["eng_Latn"] == "[[End of text.]]"


def test_the_first_language_gives_the_plain_names(tmp_path: Path) -> None:
    file = shipped_special_sentences()
    sentences = read_special_sentences(file)
    both = choose_special_sentences(sentences, None, file)
    assert [s.name for s in both[:3]] == ["start_of_text", "start_of_text.jpn_Jpan", "end_of_text"]
    assert (both[1].role, both[1].lang) == ("start_of_text", "jpn_Jpan")
    turned = choose_special_sentences(sentences, ["jpn_Jpan", "eng_Latn"], file)
    assert [s.name for s in turned[:2]] == ["start_of_text", "start_of_text.eng_Latn"]
    assert turned[0].text == both[1].text
    one = choose_special_sentences(sentences, ["jpn_Jpan", "ja"], file)
    assert len(one) == 7 and all("." not in s.name for s in one)


def test_roles_and_languages_of_a_users_own_are_taken(tmp_path: Path) -> None:
    file = write(tmp_path, MINE)
    sentences = read_special_sentences(file)
    assert sentences["start"]["fra_Latn"] == "Cela commence."
    assert [s.name for s in choose_special_sentences(sentences, ["eng_Latn"], file)] == ["start", "end"]


@pytest.mark.parametrize(
    ("langs", "told"),
    [
        (["fra_Latn"], "mine.yaml: `end` has no sentence in fra_Latn"),
        (["eng_Latm"], 'Did you mean "eng_Latn"'),
        (["deu_Latn"], "--sentences FILE"),
        ([], "at least one language of .*eng_Latn, fra_Latn"),
    ],
)
def test_a_language_that_is_not_there_is_named(langs: list[str], told: str, tmp_path: Path) -> None:
    file = write(tmp_path, MINE)
    with pytest.raises(ConfigError, match=told):
        choose_special_sentences(read_special_sentences(file), langs, file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be one mapping with a field `sentences`"),
        ("sentense: {}", "must be one mapping with a field `sentences`"),
        ("sentences: {a: {eng_Latn: x}}\nlangs: [eng_Latn]", "has no field `langs`"),
        ("sentences: {a: {eng_Latn: x}}\nsentence: {}", 'no field `sentence`. Did you mean "sentences"'),
        ("sentences: [a]", "must be a mapping of roles"),
        ("sentences: {}", "must be a mapping of roles"),
        ("sentences: {a.b: {eng_Latn: x}}", "roles of letters, digits and _, but has 'a.b'"),
        ("sentences: {a: x}", "`sentences.a` must be a mapping of language to sentence, but is 'x'"),
        ("sentences: {a: {english text: x}}", "codes such as eng_Latn, but has 'english text'"),
        ("sentences: {a: {eng_Latn: ' '}}", "`sentences.a.eng_Latn` must be a sentence, but is ' '"),
        ("sentences: {a: {eng_Latn: 3}}", "must be a sentence, but is '3'"),
        ("sentences: {a: {eng_Latn: x}, a: {eng_Latn: y}}", "not valid YAML"),
        ("sentences: !!python/object:os.system x", "not valid YAML"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(CardError, match=told) as caught:
        read_special_sentences(write(tmp_path, text))
    assert "mine.yaml" in str(caught.value) and len(str(caught.value).splitlines()) <= 3


def test_a_missing_file_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(LexalcmError, match=r"gone.yaml cannot be read: No such file or directory \(looked at /"):
        read_special_sentences(tmp_path / "gone.yaml")
