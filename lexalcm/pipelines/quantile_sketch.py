"""Quantiles of every dimension of a stream of vectors, in one pass and bounded memory, with a known error.

Shapes: C dimensions, R rows held in the buffer, G bins.

A sketch that bounds the error in *rank* (sampling, KLL, t-digest) says nothing about the error in *value* where a
distribution has a gap, and a normalizer needs the value. So this one counts values in bins that cover the whole line,
fine where the data lies and coarser outwards, and knows from the bin that a quantile fell in how far off it can be.

The first R rows are kept as they are: a corpus that is no larger gets exact quantiles. When more come, the buffered
rows choose center m and unit s of each dimension (their median and interquartile range), and from then on every row
is counted at u = asinh((x - m) / s) in steps of 1/512, from u = -12 to 12. Near m a bin is s/512 wide; it grows as
sqrt(1 + z^2) at z = (x - m) / s, so the first rows need not be typical: quartiles that end up 4 units away from where
the buffer saw them still have error below 1% of a unit, and the last bins lie 81,000 units out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

_BINS_PER_UNIT: Final = 512
_REACH: Final = 12
_NUM_BINS: Final = 2 * _REACH * _BINS_PER_UNIT
_BUFFER_BYTES: Final = 128 * 2**20


class QuantileSketch:
    """Collects rows and answers quantiles of each dimension.

    Memory at C = 1024: 128 MiB of buffer, and 96 MiB of counts once the buffer has overflowed.
    """

    num_rows: int
    """Rows seen so far."""

    def __init__(self, dim: int, *, buffer_rows: int | None = None, flat_unit: float = 1e-3) -> None:
        """
        :param dim: C.
        :param buffer_rows: R; by default what fits 128 MiB of float32.
        :param flat_unit: s of a dimension whose buffered interquartile range is below it, as a share of the 90th
            percentile of the ranges of all dimensions.
        """
        self.dim = dim
        self.num_rows = 0
        self._flat_unit = flat_unit
        rows = max(_BUFFER_BYTES // (4 * dim), 1) if buffer_rows is None else buffer_rows
        self._buffer = np.empty((dim, rows), np.float32)
        self._filled = 0
        self._counts: np.ndarray | None = None
        self._middle = self._unit = np.empty(0)

    @property
    def exact(self) -> bool:
        """True while no row has been reduced to a count."""
        return self._counts is None

    def add(self, rows: np.ndarray) -> None:
        """Takes in ``rows`` ``[n, C]`` of any float type, finite."""
        start = 0
        while start < len(rows):
            if self._filled == self._buffer.shape[1]:
                self._count_buffer()
            taken = min(len(rows) - start, self._buffer.shape[1] - self._filled)
            self._buffer[:, self._filled : self._filled + taken] = rows[start : start + taken].T
            self._filled += taken
            start += taken
        self.num_rows += len(rows)

    def quantiles(self, shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Quantiles with linear interpolation between neighbouring rows, as ``numpy.quantile`` has them.

        :param shares: Each from 0 to 1.
        :returns: Values and the largest error each can have, both float64 ``[len(shares), C]``. The error is 0 while
            the sketch is exact, and infinite for a quantile beyond the outermost bins.
        """
        if self.num_rows == 0:
            raise ValueError("a sketch that has seen no row has no quantiles.")
        if self._counts is None:
            values = np.stack(
                [np.quantile(x.astype(np.float64), shares) for x in self._buffer[:, : self._filled]], axis=1
            )
            return values, np.zeros_like(values)
        self._count_buffer()
        values, errors = np.empty((len(shares), self.dim)), np.empty((len(shares), self.dim))
        middle, half_width = self._bins()
        for c in range(self.dim):
            reached = np.cumsum(self._counts[c])
            for i, share in enumerate(shares):
                rank = share * (self.num_rows - 1)
                pair = np.array([np.floor(rank), np.ceil(rank)])
                bins = np.searchsorted(reached, pair, side="right")
                weights = np.array([1.0 - (rank - pair[0]), rank - pair[0]])
                values[i, c] = self._middle[c] + self._unit[c] * float(weights @ middle[bins])
                errors[i, c] = self._unit[c] * float(half_width[bins].max())
        return values, errors

    def _count_buffer(self) -> None:
        if self._counts is None:
            self._place_bins()
            self._counts = np.zeros((self.dim, _NUM_BINS + 2), np.int64)
        for c in range(self.dim):
            z = (self._buffer[c, : self._filled].astype(np.float64) - self._middle[c]) / self._unit[c]
            at = np.floor(np.arcsinh(z) * _BINS_PER_UNIT) + (_NUM_BINS // 2 + 1)
            at = np.clip(at, 0, _NUM_BINS + 1).astype(np.int64)
            self._counts[c] += np.bincount(at, minlength=_NUM_BINS + 2)
        self._filled = 0

    def _place_bins(self) -> None:
        low, self._middle, high = np.stack(
            [np.quantile(x.astype(np.float64), (0.25, 0.5, 0.75)) for x in self._buffer[:, : self._filled]], axis=1
        )
        spread = high - low
        # A dimension that stood still so far may move later: any bins narrow against the other dimensions will do.
        reference = float(np.quantile(spread, 0.9)) or float(spread.max()) or 1.0
        self._unit = np.maximum(spread, self._flat_unit * reference)

    @staticmethod
    def _bins() -> tuple[np.ndarray, np.ndarray]:
        """Middle and half width of every bin in units, the two open ones at the ends included."""
        edges = np.sinh(np.arange(-_NUM_BINS // 2, _NUM_BINS // 2 + 1) / _BINS_PER_UNIT)
        middle = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
        half_width = np.concatenate([[np.inf], (edges[1:] - edges[:-1]) / 2, [np.inf]])
        return middle, half_width
