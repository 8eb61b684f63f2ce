"""A stand-in for SONAR that needs no download: sentences as hashed character n-grams under a fixed random projection.

It knows spelling, not meaning: sentences that share words are near each other, translations are not. Good enough to try
a pipeline on; no model trained on it understands anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

STAND_IN_NAME: Final = "stand-in (hashed character n-grams, not SONAR)"

_NUM_HASHES: Final = 2**14
_SEED: Final = 20240517
_NARROW: Final = 256
_SONAR_NORM: Final = 0.2
"""Typical length of a SONAR vector, so that the scale of real data is met."""


class StandInEncoder:
    """Deterministic: the same text gives the same vector in every process and on every machine."""

    name = STAND_IN_NAME
    langs = None
    max_tokens = None

    def __init__(self, dim: int = 1024) -> None:
        """:param dim: Width of a vector."""
        self.dim = dim
        self._hashes = HashingVectorizer(
            analyzer="char_wb", ngram_range=(1, 4), n_features=_NUM_HASHES, norm="l2", alternate_sign=True
        )
        # A narrow sparse projection has only zeros for the n-grams of some sentences.
        if dim < _NARROW:
            self._projection = GaussianRandomProjection(n_components=dim, random_state=_SEED)
        else:
            self._projection = SparseRandomProjection(n_components=dim, random_state=_SEED, dense_output=True)
        self._projection.fit(np.zeros((1, _NUM_HASHES)))

    def encode(self, sentences: Sequence[str], lang: str | None = None) -> np.ndarray:
        """Returns float32 ``[n, dim]``, each of length 0.2; a text without characters gives the vector of a blank.

        :param lang: Has no effect.
        """
        if not sentences:
            return np.zeros((0, self.dim), np.float32)
        projected = self._projection.transform(self._hashes.transform([s if s.strip() else " . " for s in sentences]))
        vectors = projected.astype(np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return _SONAR_NORM * vectors / length

    def encode_mixed(self, sentences: Sequence[str], langs: Sequence[str | None]) -> np.ndarray:
        """:meth:`encode`, whatever the languages."""
        _check_lengths(sentences, langs)
        return self.encode(sentences)

    def over_limit(self, sentences: Sequence[str], langs: Sequence[str | None]) -> np.ndarray:
        """Returns bool ``[n]``, False for all: it reads any length."""
        _check_lengths(sentences, langs)
        return np.zeros(len(sentences), bool)

    def facts(self) -> dict[str, Any]:
        """What a vector depends on, to be recorded next to the data."""
        return {"name": self.name, "kind": "stand_in", "dim": self.dim}


def _check_lengths(sentences: Sequence[str], langs: Sequence[str | None]) -> None:
    if len(langs) != len(sentences):
        raise ValueError(f"There are {len(sentences)} sentences but {len(langs)} languages.")
