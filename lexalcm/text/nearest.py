"""Shows concepts as text where there is no decoder: the nearest known sentence.

Shapes: V known sentences, N concepts, C dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from lexalcm.errors import DataError
from lexalcm.text.checks import check_concepts
from lexalcm.text.interface import DecodedSentence

_CHUNK: Final = 2**16
"""Known sentences compared at a time: ``[N, V]`` would not fit in memory for many of both."""


class NearestSentences:
    """Known sentences, each once, and their directions."""

    def __init__(self, vectors_VC: np.ndarray, sentences: Sequence[str]) -> None:
        """:raises ValueError: Another number of sentences than of vectors."""
        if len(vectors_VC) != len(sentences):
            raise ValueError(f"There are {len(sentences)} sentences but {len(vectors_VC)} vectors.")
        first = {sentence: i for i, sentence in reversed(list(enumerate(sentences)))}
        self._sentences = list(first)
        self._unit_VC = _unit(vectors_VC[list(first.values())].astype(np.float32))

    def __len__(self) -> int:
        return len(self._sentences)

    @property
    def dim(self) -> int:
        return self._unit_VC.shape[1]

    def find(self, concepts_NC: np.ndarray) -> list[tuple[str, float]]:
        """The sentence nearest to each concept by cosine, and the cosine."""
        unit_NC = _unit(concepts_NC.astype(np.float32))
        best_N = np.zeros(len(unit_NC), np.int64)
        cosine_N = np.full(len(unit_NC), -np.inf, np.float32)
        for start in range(0, len(self._sentences), _CHUNK):
            cosine_NV = unit_NC @ self._unit_VC[start : start + _CHUNK].T
            best_of_chunk_N = cosine_NV.argmax(axis=1)
            cosine_of_chunk_N = np.take_along_axis(cosine_NV, best_of_chunk_N[:, None], axis=1)[:, 0]
            nearer_N = cosine_of_chunk_N > cosine_N
            best_N[nearer_N] = start + best_of_chunk_N[nearer_N]
            cosine_N[nearer_N] = cosine_of_chunk_N[nearer_N]
        return [(self._sentences[best], float(cosine)) for best, cosine in zip(best_N, cosine_N)]


class NearestDecoder:
    """A decoder that writes nothing of its own: it looks up the nearest known sentence, and says how near it is."""

    name = "nearest"

    def __init__(self, known: NearestSentences, *, corpus: str | None = None) -> None:
        """
        :param corpus: What the known sentences come from, for the record.
        :raises DataError: There are none.
        """
        if len(known) == 0:
            raise DataError(f"There are no sentences to look up concepts in; corpus: {corpus}.")
        self._known = known
        self.options: Mapping[str, Any] = {"corpus": corpus, "num_sentences": len(known)}

    def decode(self, concepts_NC: np.ndarray, lang: str | None = None) -> list[DecodedSentence]:
        """One sentence a concept, with its cosine.

        :param lang: Has no effect: sentences are shown as they are known.
        :raises DataError: Concepts of another width than the known ones, or that are not finite.
        """
        check_concepts(concepts_NC, self._known.dim, "The decoder that looks up known sentences")
        return [DecodedSentence(sentence, cosine) for sentence, cosine in self._known.find(concepts_NC)]


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
