"""Sentences of the sample with those nearest to them, and special concepts among them.

Shapes: K sentences of the bank, S special concepts, C dimensions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations, zip_longest
from typing import Final

import numpy as np

from lexalcm.data.special_concepts import SpecialConcepts
from lexalcm.pipelines.report.bank import Bank, shortened, unit_rows

TOO_CLOSE: Final = 0.9
"""Special concepts with a larger cosine are hard to tell apart."""

_NUM_EXAMPLES: Final = 8
_NUM_NEAREST: Final = 3
_MOST_PAIRS: Final = 10


@dataclass(frozen=True)
class Neighbour:
    """A sentence near another."""

    text: str

    lang: str

    cosine: float


@dataclass(frozen=True)
class Example:
    """A sentence, or the name of a special concept, and what is nearest to it."""

    text: str

    lang: str

    nearest: list[Neighbour]


@dataclass(frozen=True)
class SpecialFigures:
    """Special concepts beside the data."""

    names: list[str]

    vectors: np.ndarray
    """float32 ``[S, C]``."""

    norms: list[float]

    nearest: list[Example]
    """Sentences near each; empty where there is no text."""

    closest_pairs: list[tuple[str, str, float]]
    """Names and cosine of the pairs of different roles that are nearest to each other, the nearest first."""


def nearest_examples(bank: Bank) -> list[Example]:
    """A few sentences and their nearest others by cosine, taking turns over languages; none where there is no text."""
    by_lang: defaultdict[str, list[int]] = defaultdict(list)
    for index, sentence in enumerate(bank.sentences):
        if sentence.text is not None and sentence.text.strip() and len(by_lang[sentence.lang]) < _NUM_EXAMPLES:
            by_lang[sentence.lang].append(index)
    turns = [index for turn in zip_longest(*by_lang.values()) for index in turn if index is not None][:_NUM_EXAMPLES]
    unit = bank.unit
    examples = []
    for index in turns:
        sentence = bank.sentences[index]
        nearest = _nearest(bank, unit @ unit[index], without=sentence.text)
        if nearest:
            examples.append(Example(str(sentence.text), sentence.lang, nearest))
    return examples


def special_figures(special: SpecialConcepts, bank: Bank) -> SpecialFigures:
    """:raises DataError: A special concept has another width than the data."""
    vectors = np.stack([special.get(name, bank.vectors.shape[1]) for name in special.names])
    unit, known = unit_rows(vectors), bank.unit
    labels = [_label(special, name) for name in special.names]
    examples = [Example(label, "", _nearest(bank, known @ x)) for label, x in zip(labels, unit)]
    cosine = unit @ unit.T
    roles = [special.role_of(name) for name in special.names]
    # Those of one role say the same in several languages, and should be close.
    pairs = ((i, j) for i, j in combinations(range(len(unit)), 2) if roles[i] != roles[j])
    closest = sorted(((float(cosine[i, j]), i, j) for i, j in pairs), reverse=True)[:_MOST_PAIRS]
    return SpecialFigures(
        names=special.names,
        vectors=vectors,
        norms=np.linalg.norm(vectors.astype(np.float64), axis=1).tolist(),
        nearest=[example for example in examples if example.nearest],
        closest_pairs=[(special.names[i], special.names[j], c) for c, i, j in closest],
    )


def _label(special: SpecialConcepts, name: str) -> str:
    sentence = special.facts.get(name, {}).get("sentence")
    return name if sentence is None else f"{name}: {shortened(sentence)}"


def _nearest(bank: Bank, cosines: np.ndarray, *, without: str | None = None) -> list[Neighbour]:
    """The sentences with the largest cosines, each text once."""
    found: list[Neighbour] = []
    seen: set[str | None] = {None, without}
    for index in np.argsort(-cosines, kind="stable").tolist():
        sentence = bank.sentences[index]
        if sentence.text is not None and sentence.text not in seen:
            seen.add(sentence.text)
            found.append(Neighbour(sentence.text, sentence.lang, float(cosines[index])))
        if len(found) == _NUM_NEAREST:
            break
    return found
