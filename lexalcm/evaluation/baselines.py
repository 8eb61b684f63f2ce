"""What a model has to beat: copying, the mean, and ridge regressions on the history.

Shapes: T concepts of a document, C dimensions, F regression inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from lexalcm.errors import DataError

BASELINES: Final = ("copy", "mean", "ridge1", "ridge4")
PREVIOUS: Final = 4
PENALTY: Final = 10.0
_ROWS_PER_PRODUCT: Final = 2048


def history_inputs(document: np.ndarray) -> np.ndarray:
    """Regression inputs of positions 1 .. T-1: concepts t-1 .. t-4 (zeros before the start), the mean of concepts
    0 .. t-1, and a one for the bias.

    :param document: ``[T, C]``, T >= 1.
    :returns: float64 ``[T - 1, 5 C + 1]``.
    """
    x = document.astype(np.float64)
    length, dim = x.shape
    padded = np.concatenate([np.zeros((PREVIOUS, dim)), x])
    lagged = [padded[PREVIOUS - k : PREVIOUS - k + length - 1] for k in range(PREVIOUS)]
    mean = np.cumsum(x, axis=0)[:-1] / np.arange(1, length)[:, None]
    return np.concatenate([*lagged, mean, np.ones((length - 1, 1))], axis=1)


class FittedBaselines:
    """The mean of a corpus and two ridge regressions, fitted in one pass in float64.

    ``ridge1`` sees concept t-1; ``ridge4`` sees t-1 .. t-4 and the mean of the history. Both have a free bias.
    Memory is that of the normal equations: 8 (5 C + 1)^2 bytes.
    """

    def __init__(self, documents: Iterable[np.ndarray], *, penalty: float = PENALTY) -> None:
        """
        :param documents: Training documents ``[T, C]``, cut as in the protocol.
        :raises DataError: None of them has two concepts.
        """
        total, num_concepts = 0.0, 0
        gram, moment = 0.0, 0.0
        held: list[tuple[np.ndarray, np.ndarray]] = []
        num_held = 0

        def add() -> None:
            nonlocal gram, moment
            inputs = np.concatenate([pair[0] for pair in held])
            gram = gram + inputs.T @ inputs
            moment = moment + inputs.T @ np.concatenate([pair[1] for pair in held])

        for document in documents:
            total = total + document.sum(axis=0, dtype=np.float64)
            num_concepts += len(document)
            if len(document) < 2:
                continue
            held.append((history_inputs(document), document[1:].astype(np.float64)))
            num_held += len(document) - 1
            if num_held >= _ROWS_PER_PRODUCT:
                add()
                held, num_held = [], 0
        if held:
            add()
        if isinstance(gram, float):
            raise DataError("the data for the baselines has no document of two concepts or more.")
        self.num_concepts = num_concepts
        self.mean: np.ndarray = total / num_concepts
        dim = len(self.mean)
        every = np.arange(len(gram))
        self._rows = {"ridge1": np.concatenate([every[:dim], every[-1:]]), "ridge4": every}
        self._weights = {name: _solve(gram, moment, rows, penalty) for name, rows in self._rows.items()}

    def predict(self, name: str, document: np.ndarray) -> np.ndarray:
        """Predictions of positions 1 .. T-1, float64 ``[T - 1, C]``, by ``mean``, ``ridge1`` or ``ridge4``."""
        if len(document) < 2:
            return np.zeros((0, len(self.mean)))
        if name == "mean":
            return np.tile(self.mean, (len(document) - 1, 1))
        return history_inputs(document)[:, self._rows[name]] @ self._weights[name]


def copy_previous(document: np.ndarray) -> np.ndarray:
    """Predicts every concept to be the one before it; ``[T - 1, C]``."""
    return document[:-1]


def baseline_predictions(
    name: str, documents: Iterable[np.ndarray], fitted: FittedBaselines | None
) -> Iterator[np.ndarray] | None:
    """Predictions of a named baseline, or None where it needs a fit that there is not."""
    if name == "copy":
        return (copy_previous(document) for document in documents)
    if fitted is None:
        return None
    return (fitted.predict(name, document) for document in documents)


def _solve(gram: np.ndarray, moment: np.ndarray, rows: np.ndarray, strength: float) -> np.ndarray:
    penalty = np.full(len(rows), strength)
    penalty[-1] = 0.0
    return np.linalg.solve(gram[np.ix_(rows, rows)] + np.diag(penalty), moment[rows])
