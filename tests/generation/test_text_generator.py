"""Sentences go in and come out in the right language, at the right prompt, whatever is in the batch beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from lexalcm.errors import ConfigError, DataError
from lexalcm.generation.generator import Ended, NewConcept, Prompt
from lexalcm.generation.prompts import PromptRow, number_prompts, text_prompt
from lexalcm.generation.text_generator import NewSentence, TextGenerator
from lexalcm.text.interface import DecodedSentence


class Stops:
    name = "stops"

    def split(self, text: str, lang: str | None = None) -> list[str]:
        return [part.strip() + "." for part in text.split(".") if part.strip()]


class Lengths:
    """A sentence becomes its length, and a number for its language."""

    name, dim = "lengths", 2

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str | None]] = []

    def encode(self, sentences: Sequence[str], lang: str | None = None) -> np.ndarray:
        self.calls.append((list(sentences), lang))
        return np.asarray([[len(s), ord((lang or "?")[0])] for s in sentences], np.float64).reshape(-1, 2)


class Words:
    name, options = "words", {"beam_size": 1}

    def decode(self, concepts_NC: np.ndarray, lang: str | None = None) -> list[DecodedSentence]:
        return [DecodedSentence(f"{lang}:{c[0]:g}") for c in concepts_NC]


class CountsOn:
    """Adds 1 to the last concept; prompts take turns, and the last to enter finishes first."""

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[NewConcept | Ended]:
        entered = list(enumerate(prompts))
        for step in range(3):
            for number, prompt in reversed(entered):
                yield NewConcept(number, step, prompt.concepts[-1] + step + 1)
        for number, _ in reversed(entered):
            yield Ended(number, "max_sentences", 3, None, "3 sentences")


def generator(**options: Any) -> TextGenerator:
    parts = {"segmenter": Stops(), "encoder": Lengths(), "decoder": Words(), "lang": "eng_Latn"}
    return TextGenerator(CountsOn(), concept_dim=2, **{**parts, **options})


def prompts(*fields: dict[str, Any]) -> list[Any]:
    return list(number_prompts(PromptRow(where=f"row {i}", place=str(i), **f) for i, f in enumerate(fields)))


def test_a_text_is_streamed_in_its_own_language_or_another() -> None:
    assert list(generator().stream("Rain. More rain.")) == ["eng_Latn:11", "eng_Latn:12", "eng_Latn:13"]
    assert next(generator().stream("Rain.", lang="jpn_Jpan")) == "jpn_Jpan:6"
    assert next(generator(target_langs=["deu_Latn"]).stream("Rain.")) == "deu_Latn:6"
    assert next(generator().stream("Rain.", target_lang="fra_Latn")) == "fra_Latn:6"


def test_following_a_prompt_gives_all_languages_and_the_reason() -> None:
    *sentences, ended = generator(target_langs=["a", "b"]).follow(text_prompt("Rain."))
    assert [s.texts["b"].text for s in sentences if isinstance(s, NewSentence)] == ["b:6", "b:7", "b:8"]
    assert isinstance(ended, Ended) and ended.reason == "max_sentences"


def test_prompts_of_several_languages_are_encoded_apart_and_find_their_place() -> None:
    given = prompts(
        {"text": "Rain. Sun.", "lang": "aaa"},
        {"concepts": np.ones((1, 2)), "lang": "ccc"},
        {"sentences": ("Wind.",), "lang": "bbb"},
        {"text": "Snow.", "lang": "aaa"},
    )
    encoder = Lengths()
    found = {c.prompt.id: c for c in generator(encoder=encoder).continue_prompts(given)}
    assert encoder.calls == [(["Rain.", "Sun.", "Snow."], "aaa"), (["Wind."], "bbb")]
    texts = {name: [s.text for s in c.texts[c.prompt.lang or ""]] for name, c in found.items()}
    assert texts["0"] == ["aaa:5", "aaa:6", "aaa:7"] and texts["1"] == ["ccc:2", "ccc:3", "ccc:4"]
    assert texts["2"] == ["bbb:6", "bbb:7", "bbb:8"] and texts["3"][0] == "aaa:6"
    assert found["0"].prompt.sentences == ("Rain.", "Sun.") and found["1"].prompt.sentences is None


def test_reading_ahead_changes_nothing() -> None:
    given = prompts(*({"text": "Rain. " * n} for n in range(1, 6)))
    one, three, nine = (
        [made.as_row(with_concepts=True) for made in generator(read_ahead=ahead).continue_prompts(given)]
        for ahead in (1, 3, 9)
    )
    assert one == three == nine


def test_a_row_tells_all_and_its_concepts_are_exact() -> None:
    concepts = np.asarray([[0.1, 1e-30]], np.float32)
    (made,) = generator(target_langs=["a"]).continue_prompts(prompts({"id": "x", "concepts": concepts}))
    row = made.as_row(with_concepts=True)
    assert np.array_equal(np.asarray(row["concepts"], np.float32), made.concepts)
    assert row["id"] == "x" and row["index"] == 0 and row["prompt"] is None and row["lang"] == "eng_Latn"
    assert row["continuation"] == {"a": ["a:1.1", "a:2.1", "a:3.1"]} and "cosine" not in row
    assert (row["reason"], row["detail"], row["num_concepts"]) == ("max_sentences", "3 sentences", 3)
    assert "concepts" not in made.as_row(with_concepts=False)


def test_a_decoder_of_one_language_is_asked_for_none_and_its_cosines_are_told() -> None:
    class Nearest:
        name, options = "nearest", {}

        def decode(self, concepts_NC: np.ndarray, lang: str | None = None) -> list[DecodedSentence]:
            assert lang is None
            return [DecodedSentence("Rain.", 0.123456) for _ in concepts_NC]

    row = generator(decoder=Nearest(), target_langs=None).continue_text("Sun.").as_row(with_concepts=False)
    assert row["continuation"] == {"text": ["Rain."] * 3} and row["cosine"] == {"text": [0.1235] * 3}


def test_without_a_decoder_concepts_come_out() -> None:
    concepts_only = generator(decoder=None)
    made = concepts_only.continue_text("Rain.")
    assert made.texts == {} and made.concepts.shape == (3, 2) and made.concepts.dtype == np.float32
    with pytest.raises(ConfigError, match="no decoder"):
        next(concepts_only.stream("Rain."))


def test_prompts_are_taken_as_there_is_room() -> None:
    taken = []

    def endless() -> Iterator[Any]:
        for number in range(1000):
            taken.append(number)
            yield prompts({"concepts": np.ones((1, 2))})[0]

    class OneAtATime:
        def generate(self, prompts: Iterable[Prompt]) -> Iterator[NewConcept | Ended]:
            for number, _ in enumerate(prompts):
                yield NewConcept(number, 0, torch.zeros(2))
                yield Ended(number, "max_sentences", 1, None, "")

    lazy = TextGenerator(OneAtATime(), concept_dim=2, read_ahead=4)
    next(lazy.continue_prompts(endless()))
    assert len(taken) == 4


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(DataError, match="finds no sentence"):
        generator().continue_text("...")
    with pytest.raises(ConfigError, match=r"lengths makes concepts of 2 dimensions, but the model's have 3"):
        TextGenerator(CountsOn(), concept_dim=3, encoder=Lengths())
    with pytest.raises(DataError, match="row 0: its concepts have 5 dimensions, but the model's have 2"):
        next(generator().continue_prompts(prompts({"concepts": np.ones((1, 5))})))
    with pytest.raises(ConfigError, match="no encoder"):
        generator(encoder=None).continue_text("Rain.")
    with pytest.raises(ConfigError, match="no segmenter"):
        generator(segmenter=None).continue_text("Rain.")
