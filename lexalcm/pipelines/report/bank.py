"""A random sample of sentences of bounded size, for the picture in two dimensions and the nearest neighbours.

Shapes: N sentences of a chunk, K sentences kept, C dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lexalcm.pipelines.report.sample import SampledDocument

MOST_SENTENCES: Final = 10_000
LONGEST_SHOWN: Final = 1000


@dataclass(frozen=True)
class KeptSentence:
    """One sentence of the sample."""

    text: str | None

    lang: str

    document: int
    """The document's number."""

    place: str
    """``source:relative path:row, sentence n``."""


@dataclass(frozen=True)
class Bank:
    """Sentences in random order."""

    vectors: np.ndarray
    """float32 ``[K, C]``."""

    sentences: list[KeptSentence]

    @property
    def unit(self) -> np.ndarray:
        """Directions, float32 ``[K, C]``."""
        return unit_rows(self.vectors)


class BankCollector:
    """Keeps every sentence with the same probability (the smallest of random keys)."""

    def __init__(self, dim: int, *, seed: int, most: int = MOST_SENTENCES) -> None:
        self._rng = np.random.default_rng([seed, 1])
        self._most = most
        self._keys = np.zeros(0)
        self._vectors = np.zeros((0, dim), np.float32)
        self._sentences: list[KeptSentence] = []

    def add(self, documents: Sequence[SampledDocument], vectors: np.ndarray) -> None:
        """
        :param vectors: float32 ``[N, C]``, those of all ``documents`` in order.
        """
        keys = self._rng.random(len(vectors))
        new = np.flatnonzero(keys < self._bound())
        if len(new) > self._most:
            new = new[np.argpartition(keys[new], self._most)[: self._most]]
        new.sort()
        self._vectors = np.concatenate([self._vectors, vectors[new]])
        self._keys = np.concatenate([self._keys, keys[new]])
        self._sentences += _kept(documents, new)
        if len(self._keys) > self._most:
            stay = np.sort(np.argpartition(self._keys, self._most)[: self._most])
            self._keys, self._vectors = self._keys[stay], self._vectors[stay]
            self._sentences = [self._sentences[i] for i in stay.tolist()]

    def _bound(self) -> float:
        return float(self._keys.max()) if len(self._keys) == self._most else np.inf

    def bank(self) -> Bank:
        order = np.argsort(self._keys)
        return Bank(self._vectors[order], [self._sentences[i] for i in order.tolist()])


def _kept(documents: Sequence[SampledDocument], which: np.ndarray) -> list[KeptSentence]:
    ends = np.cumsum([len(document.concepts) for document in documents])
    owners = np.searchsorted(ends, which, side="right")
    kept: list[KeptSentence] = []
    texts: list[str] | None = None
    last = -1
    for owner, index in zip(owners.tolist(), which.tolist()):
        document = documents[owner]
        if owner != last:
            texts, last = document.sentences(), owner
        at = index - int(ends[owner]) + len(document.concepts)
        text = None if texts is None else shortened(texts[at])
        kept.append(KeptSentence(text, document.lang, document.number, f"{document.place}, sentence {at}"))
    return kept


def shortened(text: str, most: int = LONGEST_SHOWN) -> str:
    """The start of a text."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows divided by their norms, float32; a zero row stays what it is."""
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return (x / np.where(norm > 0.0, norm, 1.0)).astype(np.float32)
