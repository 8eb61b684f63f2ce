"""The stand-in is deterministic, spells, and is of SONAR's scale."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lexalcm.pipelines.demo_grammar import LANGUAGES, Grammar
from lexalcm.text.nearest import NearestSentences
from lexalcm.text.stand_in_encoder import STAND_IN_NAME, StandInEncoder


def test_vectors_have_the_width_and_length_asked_for() -> None:
    vectors = StandInEncoder(64).encode(["one", "two words", ""])
    assert vectors.shape == (3, 64) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 0.2, rtol=1e-5)
    assert StandInEncoder(64).encode([]).shape == (0, 64)


@pytest.mark.parametrize("dim", [2, 8, 300])
def test_no_sentence_is_lost_in_a_narrow_projection(dim: int) -> None:
    grammar, rng = Grammar(), np.random.default_rng(0)
    sentences = [s for lang in LANGUAGES for _ in range(200) for s in grammar.write_story(rng, lang).sentences]
    vectors = StandInEncoder(dim).encode(sentences)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 0.2, rtol=1e-5)


def test_another_process_gives_the_same_vectors() -> None:
    code = (
        "from lexalcm.text.stand_in_encoder import StandInEncoder as E; print(E(32).encode(['a test'])[0, :5].tolist())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert runs == {f"{StandInEncoder(32).encode(['a test'])[0, :5].tolist()}\n"}


def test_sentences_that_share_words_are_nearer() -> None:
    a, b, c = StandInEncoder(512).encode(["the cat sat on the mat", "the cat lay on the mat", "quarks bind by gluons"])
    assert a @ b > 2 * abs(a @ c)


def test_nearest_sentence_is_found_with_its_cosine_and_each_is_listed_once() -> None:
    encoder = StandInEncoder(128)
    known = ["first", "second", "first", "third"]
    nearest = NearestSentences(encoder.encode(known), known)
    (sentence, cosine), (other, _) = nearest.find(encoder.encode(["second", "third"]) * 3)
    assert (sentence, other) == ("second", "third") and cosine == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match="3 sentences but 2 vectors"):
        NearestSentences(np.ones((2, 4)), ["a", "b", "c"])


def test_languages_and_lengths_are_the_same_to_it() -> None:
    encoder = StandInEncoder(16)
    sentences = ["one", "two " * 1000, "one"]
    np.testing.assert_array_equal(encoder.encode_mixed(sentences, ["eng_Latn", "", "x"]), encoder.encode(sentences))
    assert encoder.over_limit(sentences, [""] * 3).tolist() == [False] * 3
    assert encoder.facts() == {"name": STAND_IN_NAME, "kind": "stand_in", "dim": 16}
    with pytest.raises(ValueError, match="3 sentences but 1 languages"):
        encoder.encode_mixed(sentences, [""])
