"""Counts how often each value occurs: exact quantiles and histograms of any number of values in the memory of the
distinct ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """What is told of many numbers in one line."""

    count: int

    mean: float

    minimum: float

    lower: float
    """The quartile below which a quarter lies."""

    median: float

    upper: float
    """The quartile above which a quarter lies."""

    maximum: float


class Tally:
    """Values with their counts."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()

    def add(self, values: np.ndarray) -> None:
        """Counts ``values`` ``[N]`` of any type, finite; what is not a whole number is best rounded before."""
        distinct, counts = np.unique(values, return_counts=True)
        self._counts.update(dict(zip(distinct.tolist(), counts.tolist())))

    def __len__(self) -> int:
        return self._counts.total()

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct values, float64, ascending, and their counts, int64."""
        values = np.asarray(sorted(self._counts), np.float64)
        return values, np.asarray([self._counts[v] for v in values.tolist()], np.int64)

    def quantiles(self, *shares: float) -> list[float]:
        """As ``numpy.quantile`` of all values; there must be one."""
        values, counts = self.arrays()
        ends = np.cumsum(counts)
        found = []
        for share in shares:
            place = share * (len(self) - 1)
            low, high = (
                values[np.searchsorted(ends, rank, side="right")] for rank in (np.floor(place), np.ceil(place))
            )
            found.append(float(low + (high - low) * (place % 1.0)))
        return found

    def share_above(self, limit: float) -> float:
        """The share of values that are larger than ``limit``, 0 of none."""
        return sum(n for v, n in self._counts.items() if v > limit) / max(len(self), 1)

    def summary(self) -> Summary | None:
        """``None`` of no values."""
        if not self._counts:
            return None
        values, counts = self.arrays()
        lowest, lower, median, upper, highest = self.quantiles(0.0, 0.25, 0.5, 0.75, 1.0)
        return Summary(len(self), float(values @ counts) / len(self), lowest, lower, median, upper, highest)


def rounded(values: np.ndarray, *, digits: int = 4) -> np.ndarray:
    """Rounds to so many significant digits, float64, so that few distinct values remain to be counted."""
    x = values.astype(np.float64)
    with np.errstate(divide="ignore"):
        unit = 10.0 ** (np.floor(np.where(x == 0.0, 0.0, np.log10(np.abs(x)))) - (digits - 1))
    return np.round(x / unit) * unit
