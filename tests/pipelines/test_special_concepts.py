"""Special sentences become a file that reader and generator use, and its concepts are compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexalcm.data.special_concepts import SpecialConcepts, load_special_concepts
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.special_concepts import close_pairs, make_special_concepts, pairwise_cosines
from lexalcm.text.special_sentences import SpecialSentence

PUBLISHED = Path(__file__).parents[3] / "shared" / "special_concepts"

SENTENCES = [
    SpecialSentence("start", "start", "eng_Latn", "It begins."),
    SpecialSentence("start.jpn_Jpan", "start", "jpn_Jpan", "\u59cb\u307e\u308b\u3002"),
    SpecialSentence("end", "end", "eng_Latn", "It ends."),
]


class CountingEncoder:
    """A sentence's vector is its length, its language's first letter, and 1."""

    name = "counting"
    dim = 3
    langs: Sequence[str] | None = ("eng_Latn", "jpn_Jpan")
    max_tokens: int | None = 12

    def encode(self, sentences: Sequence[str], lang: str | None = None) -> np.ndarray:
        return self.encode_mixed(sentences, [lang or ""] * len(sentences))

    def encode_mixed(self, sentences: Sequence[str], langs: Sequence[str]) -> np.ndarray:
        rows = [(len(text), ord(lang[0]), 1) if text != "0" else (0, 0, 0) for text, lang in zip(sentences, langs)]
        return np.asarray(rows, np.float32)

    def over_limit(self, sentences: Sequence[str], langs: Sequence[str]) -> np.ndarray:
        return np.asarray([len(text) > 12 for text in sentences])

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "dim": self.dim}


def test_a_file_holds_each_sentences_concept_and_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "new" / "s.safetensors"
    make_special_concepts(file, SENTENCES, CountingEncoder())
    special = load_special_concepts(file)
    assert list(special.vectors) == ["start", "start.jpn_Jpan", "end"]
    assert special.get("start", 3).tolist() == [10.0, ord("e"), 1.0]
    assert special.get("start.jpn_Jpan", 3).tolist() == [4.0, ord("j"), 1.0]
    assert special.facts["start.jpn_Jpan"] == {
        "role": "start",
        "lang": "jpn_Jpan",
        "sentence": SENTENCES[1].text,
        "encoder": "counting",
    }
    assert special.role_of("start.jpn_Jpan") == "start"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_same_sentences_give_the_same_bytes(tmp_path: Path) -> None:
    contents = set()
    for number in range(8):
        make_special_concepts(tmp_path / f"{number}.safetensors", SENTENCES, CountingEncoder())
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1


def test_a_sentence_that_would_be_cut_or_means_nothing_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    long, empty = (SpecialSentence("tool", "tool", "eng_Latn", text) for text in ("much too long", "0"))
    with pytest.raises(ConfigError, match="sentence of `tool` is longer than counting takes"):
        make_special_concepts(tmp_path / "s.safetensors", [*SENTENCES, long], CountingEncoder())
    with pytest.raises(DataError, match="counting gives a zero vector for `tool`: 0"):
        make_special_concepts(tmp_path / "s.safetensors", [*SENTENCES, empty], CountingEncoder())
    assert not list(tmp_path.iterdir())


def special(facts: dict[str, dict[str, str]] | None = None, **vectors: list[float]) -> SpecialConcepts:
    return SpecialConcepts({name: np.asarray(x, np.float32) for name, x in vectors.items()}, source="s", facts=facts)


def test_cosines_are_those_of_every_pair() -> None:
    found = pairwise_cosines(special(a=[1, 0], b=[3, 3], c=[0, -2], d=[0, 0]).vectors)
    half = 0.5**0.5
    expected = [[1, half, 0, 0], [half, 1, -half, 0], [0, -half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_pairs_above_the_bound_are_told_nearest_first() -> None:
    found = close_pairs(special(a=[1, 0], b=[1, 0.1], c=[1, 0.3], d=[-1, 0]), 0.96)
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("b", "c")]
    assert found[0].cosine == pytest.approx(1 / 1.01**0.5)


def test_one_role_in_two_languages_may_be_near() -> None:
    facts = {"end": {"role": "end"}, "end_ja": {"role": "end"}}
    assert close_pairs(special(end=[1, 0], end_ja=[1, 0])) != []
    assert close_pairs(special(facts, end=[1, 0], end_ja=[1, 0])) == []


def test_concepts_of_two_encoders_are_not_compared() -> None:
    with pytest.raises(DataError, match="widths differ: a 2, b 3"):
        close_pairs(special(a=[1, 0], b=[1, 0, 0]))


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no {PUBLISHED}")
def test_the_published_start_and_end_are_too_near() -> None:
    (pair,) = close_pairs(load_special_concepts(PUBLISHED))
    assert (pair.first, pair.second) == ("EndOfText", "StartOfText")
    assert pair.cosine == pytest.approx(0.951860, abs=1e-6)
