"""A small grammar of stories in English and Japanese, with an order that a model can learn.

Each story follows one script: its events come in a fixed order, some may be left out, some come in one of two variants.
A hero, a place and an object are drawn once and stay. So a sentence tells which script it is, where in it, and who and
where: the next sentence is mostly, not wholly, determined, and differs from the one before it in most of its words. The
words are in ``demo_grammar.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import numpy as np

from lexalcm.yaml_text import parse_yaml

LANGUAGES: Final = ("eng_Latn", "jpn_Jpan")


@dataclass(frozen=True)
class Story:
    """One document."""

    title: str

    lang: str

    sentences: list[str]


_LEAVE_OUT: Final = 0.3


class Grammar:
    """The words and scripts of all languages."""

    def __init__(self) -> None:
        text = resources.files("lexalcm.pipelines").joinpath("demo_grammar.yaml").read_text(encoding="utf-8")
        self._by_lang: dict[str, Any] = parse_yaml(text)[0]

    def write_story(self, rng: np.random.Generator, lang: str) -> Story:
        """Draws one story."""

        def pick(options: Sequence[str]) -> str:
            return options[int(rng.integers(len(options)))]

        words = self._by_lang[lang]
        script = pick(list(words["scripts"]))
        hero, place = pick(words["names"]), pick(words["places"])
        thing = pick(words["scripts"][script]["objects"])
        sentences = []
        for event in words["scripts"][script]["events"]:
            if event.startswith("?") and rng.random() < _LEAVE_OUT:
                continue
            sentences.append(pick(event.lstrip("?").split("|")).format(n=hero, p=place, o=thing))
        return Story(f"{script}: {hero}, {place}", lang, sentences)
