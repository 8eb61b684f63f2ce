"""Shows concepts as text where there is no decoder: the nearest known sentence.

Shapes: V known sentences, N concepts, C dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class NearestSentences:
    """Known sentences, each once, and their directions."""

    def __init__(self, vectors_VC: np.ndarray, sentences: Sequence[str]) -> None:
        """:raises ValueError: Another number of sentences than of vectors."""
        if len(vectors_VC) != len(sentences):
            raise ValueError(f"There are {len(sentences)} sentences but {len(vectors_VC)} vectors.")
        first = {sentence: i for i, sentence in reversed(list(enumerate(sentences)))}
        self._sentences = list(first)
        self._unit_VC = _unit(vectors_VC[list(first.values())].astype(np.float32))

    def find(self, concepts_NC: np.ndarray) -> list[tuple[str, float]]:
        """The sentence nearest to each concept by cosine, and the cosine."""
        cosine_NV = _unit(concepts_NC.astype(np.float32)) @ self._unit_VC.T
        best_N = cosine_NV.argmax(axis=1)
        return [(self._sentences[b], float(row[b])) for b, row in zip(best_N, cosine_NV)]


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
