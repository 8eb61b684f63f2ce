"""What a fit needs to know of every dimension of a corpus, collected in one pass.

Shapes: C dimensions, n rows of one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lexalcm.pipelines.fit_rule import FitRule
from lexalcm.pipelines.quantile_sketch import QuantileSketch


@dataclass(frozen=True, kw_only=True)
class CorpusFigures:
    """All arrays ``[C]``, float64 but for :attr:`constant`."""

    num_rows: int

    center: np.ndarray
    """Mean or median."""

    spread: np.ndarray
    """Population standard deviation, or the range between the rule's quantiles."""

    error: np.ndarray
    """The largest error that center, spread and tails can have, infinite if any is unknown. That of the tails counts in
    proportion to their distance from the center, where that is more than the spread."""

    constant: np.ndarray
    """bool: scikit-learn (1.7) would call the dimension constant."""

    tails: tuple[np.ndarray | None, np.ndarray | None]
    """The values at the rule's ``clip_proba`` and at the opposite share."""


class FigureCollector:
    """Takes in a corpus chunk by chunk."""

    def __init__(self, dim: int, rule: FitRule, *, buffer_rows: int | None, flat_unit: float) -> None:
        """
        :param buffer_rows: As :class:`QuantileSketch` has it, and ``flat_unit`` too.
        """
        self._rule = rule
        self._moments = _Moments(dim) if rule.method == "standard" else None
        self._sketch: QuantileSketch | None = None
        if self._moments is None or rule.clip_proba is not None:
            self._sketch = QuantileSketch(dim, buffer_rows=buffer_rows, flat_unit=flat_unit)

    def add(self, chunk: np.ndarray) -> None:
        """Takes in ``chunk`` ``[n, C]`` of any float type, finite."""
        for part in (self._moments, self._sketch):
            if part is not None:
                part.add(chunk)

    def figures(self) -> CorpusFigures:
        if self._moments is not None:
            center, spread, constant = self._moments.result()
            num_rows, error = self._moments.num_rows, np.zeros_like(center)
        else:
            assert self._sketch is not None
            shares = (self._rule.quantiles[0] / 100.0, 0.5, self._rule.quantiles[1] / 100.0)
            (low, center, high), (low_error, center_error, high_error) = self._sketch.quantiles(shares)
            num_rows, spread = self._sketch.num_rows, high - low
            error = np.maximum(center_error, low_error + high_error)
            constant = spread < 10 * np.finfo(np.float64).eps
        tails: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
        if self._rule.clip_proba is not None:
            assert self._sketch is not None
            values, errors = self._sketch.quantiles((self._rule.clip_proba, 1.0 - self._rule.clip_proba))
            distance = np.abs(values - center)
            nearness = np.divide(spread, distance, out=np.ones_like(distance), where=distance > spread)
            error = np.maximum(error, (errors * nearness).max(axis=0))
            tails = (values[0], values[1])
        return CorpusFigures(
            num_rows=num_rows, center=center, spread=spread, error=error, constant=constant, tails=tails
        )


class _Moments:
    """Mean and squared deviations, chunks merged by Chan, Golub and LeVeque (1979), eq. 2.1."""

    def __init__(self, dim: int) -> None:
        self.num_rows = 0
        self._mean = np.zeros(dim)
        self._squares = np.zeros(dim)

    def add(self, chunk: np.ndarray) -> None:
        x = chunk.astype(np.float64)
        mean = x.mean(axis=0)
        total = self.num_rows + len(x)
        shift = mean - self._mean
        self._squares += ((x - mean) ** 2).sum(axis=0) + shift**2 * (self.num_rows * len(x) / total)
        self._mean += shift * (len(x) / total)
        self.num_rows = total

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, standard deviation, and where the deviation is no more than its rounding error."""
        variance = self._squares / self.num_rows
        eps, n = np.finfo(np.float64).eps, self.num_rows
        constant = variance <= n * eps * variance + (n * self._mean * eps) ** 2
        return self._mean, np.sqrt(variance), constant
