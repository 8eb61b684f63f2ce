"""The nearest known sentence is found, however many there are."""

from __future__ import annotations

import numpy as np
import pytest

from lexalcm.errors import DataError
from lexalcm.text.interface import DecodedSentence
from lexalcm.text.nearest import NearestDecoder, NearestSentences

COMPASS = NearestSentences(np.array([[0.0, 2.0], [3.0, 0.0], [0.0, -1.0]]), ["north", "east", "south"])


def test_a_concept_is_shown_as_the_nearest_sentence_with_its_cosine() -> None:
    decoder = NearestDecoder(COMPASS, corpus="compass")
    assert decoder.decode(np.array([[0.1, -5.0], [4.0, 3.0]])) == [
        DecodedSentence("south", pytest.approx(0.9998, abs=1e-4)),
        DecodedSentence("east", pytest.approx(0.8)),
    ]
    assert decoder.options == {"corpus": "compass", "num_sentences": 3}
    assert decoder.decode(np.zeros((0, 2))) == []


def test_many_known_sentences_are_compared_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, sentences = rng.normal(size=(50, 8)), [f"{i}" for i in range(50)]
    concepts = np.concatenate([vectors[[0, 6, 7, 49]] * 2, rng.normal(size=(20, 8))])
    at_once = NearestSentences(vectors, sentences).find(concepts)
    monkeypatch.setattr("lexalcm.text.nearest._CHUNK", 7)
    in_chunks = NearestSentences(vectors, sentences).find(concepts)
    assert [sentence for sentence, _ in in_chunks][:4] == ["0", "6", "7", "49"]
    assert [sentence for sentence, _ in in_chunks] == [sentence for sentence, _ in at_once]
    np.testing.assert_allclose([c for _, c in in_chunks], [c for _, c in at_once], rtol=1e-6)


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        (np.ones((1, 3)), r"reads concepts of 2 numbers, \[N, 2\], but these have the shape \[1, 3\]"),
        (np.ones(2), r"have the shape \[2\]"),
        (np.array([[1.0, 0.0], [np.nan, 0.0]]), "Concept 1 of 2 has NaN"),
    ],
)
def test_concepts_that_cannot_be_compared_are_refused(concepts: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        NearestDecoder(COMPASS, corpus="compass").decode(concepts)


def test_a_corpus_without_sentences_is_refused() -> None:
    with pytest.raises(DataError, match="no sentences to look up concepts in; corpus: empty"):
        NearestDecoder(NearestSentences(np.zeros((0, 2)), []), corpus="empty")
