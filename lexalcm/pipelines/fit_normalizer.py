"""Fits center and scale of every dimension of a corpus in one streaming pass.

Shapes: C dimensions of a concept, n concepts of one chunk.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np

from lexalcm.errors import ConfigError, DataError, unknown_name
from lexalcm.pipelines.quantile_sketch import QuantileSketch

FitMethod = Literal["robust", "standard"]

IQR_TO_DEVIATION: Final = 0.7413
"""The standard deviation of a Gaussian with interquartile range 1."""

DEAD_SHARE: Final = 1e-3
DEAD_STEPS: Final = 4
FEW_CONCEPTS: Final = 1000
_LARGEST_ERROR: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class NormalizerFit:
    """Statistics of a corpus and how they came about."""

    center: np.ndarray
    """float32 ``[C]``."""

    scale: np.ndarray
    """float32 ``[C]``, positive; 1 in dead dimensions."""

    method: FitMethod

    num_concepts: int

    dead_dims: tuple[int, ...]
    """Dimensions without spread."""

    error_bound: float
    """The largest possible error of median and interquartile range of a live dimension, as a share of its range; 0 when
    they are exact."""

    num_documents: int | None = None

    files: tuple[str, ...] = ()


def fit(chunks: Iterable[np.ndarray], method: FitMethod = "robust", *, buffer_rows: int | None = None) -> NormalizerFit:
    """Fits the statistics of a stream of concepts.

    ``standard`` is mean and population standard deviation, accumulated in float64. ``robust`` is the median and 0.7413
    times the interquartile range, exact for a corpus that fits 128 MiB of float32 and from a sketch beyond that.

    A dimension is *dead*, and gets scale 1, when its spread is at most 1e-3 of the 90th percentile of all spreads, or
    at most 4 rounding steps of the stored type at its center: dividing by it would blow rounding noise up.

    :param chunks: Arrays ``[n, C]`` of any float type.
    :param buffer_rows: Rows that ``robust`` keeps before it sketches.
    :raises DataError: No concepts, chunks of different C, NaN or infinity, or data so unlike its own beginning that the
        sketch cannot place a quartile.
    """
    if method not in get_args(FitMethod):
        raise ConfigError(f"method: {unknown_name('method of fitting', method, get_args(FitMethod))}")
    accumulator: _Moments | _Quartiles | None = None
    step = 0.0
    for chunk in chunks:
        if len(chunk) == 0:
            continue
        if accumulator is None:
            dim = chunk.shape[1]
            accumulator = _Moments(dim) if method == "standard" else _Quartiles(dim, buffer_rows)
        if chunk.ndim != 2 or chunk.shape[1] != dim:
            raise DataError(f"concepts must have {dim} dimensions as the first ones, but some have {chunk.shape[-1]}.")
        if not np.isfinite(chunk).all():
            raise DataError(
                "concepts hold NaN or infinity. Find the rows with `fairseq2 lcm verify`, or skip bad rows."
            )
        step = max(step, float(np.finfo(chunk.dtype).eps))
        accumulator.add(chunk)
    if accumulator is None:
        raise DataError("there are no concepts to fit a normalizer on.")
    center, spread, scale, error = accumulator.result()
    dead = _dead(center, spread, step)
    bound = _error_bound(error, spread, dead)
    if len(dead):
        warnings.warn(
            f"{len(dead)} of {dim} dimensions have no spread and get scale 1: {listed_dims(dead)}.", stacklevel=2
        )
    if accumulator.num_rows < FEW_CONCEPTS:
        warnings.warn(
            f"Only {accumulator.num_rows} concepts: too few for statistics to rely on (at least {FEW_CONCEPTS}).",
            stacklevel=2,
        )
    scale[dead] = 1.0
    return NormalizerFit(
        center=center.astype(np.float32),
        scale=scale.astype(np.float32),
        method=method,
        num_concepts=accumulator.num_rows,
        dead_dims=tuple(int(d) for d in dead),
        error_bound=bound,
    )


def fit_normalizer(
    dataset: Any,
    split: str | None = "train",
    method: FitMethod = "robust",
    *,
    progress: Callable[[int, int], None] | None = None,
) -> NormalizerFit:
    """:func:`fit` on all concepts of a split, documents in file order.

    :param dataset: A :class:`lexalcm.data.dataset.ConceptParquetDataset`, or anything whose ``documents(split)`` yields
        objects with ``concepts`` ``[T, C]`` and ``file``.
    :param progress: Called now and then with the documents and concepts read so far.
    """
    files: dict[str, None] = {}
    num_documents = 0

    def chunks() -> Iterator[np.ndarray]:
        nonlocal num_documents
        num_concepts = 0
        for document in dataset.documents(split):
            files[str(document.file)] = None
            num_documents += 1
            num_concepts += len(document.concepts)
            if progress is not None and num_documents % 1000 == 0:
                progress(num_documents, num_concepts)
            yield document.concepts

    result = fit(_grouped(chunks()), method)
    return replace(result, num_documents=num_documents, files=tuple(files))


def _grouped(chunks: Iterable[np.ndarray], *, rows: int = 8192) -> Iterator[np.ndarray]:
    """Joins the short arrays of single documents, so that the work a chunk costs is spread over many rows."""
    held: list[np.ndarray] = []
    num_held = 0
    for chunk in chunks:
        if held and (chunk.shape[1:] != held[0].shape[1:] or chunk.dtype != held[0].dtype):
            yield np.concatenate(held)
            held, num_held = [], 0
        held.append(chunk)
        num_held += len(chunk)
        if num_held >= rows:
            yield np.concatenate(held)
            held, num_held = [], 0
    if held:
        yield np.concatenate(held)


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

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        spread = np.sqrt(self._squares / self.num_rows)
        return self._mean, spread, spread.copy(), np.zeros_like(spread)


class _Quartiles:
    def __init__(self, dim: int, buffer_rows: int | None) -> None:
        self._sketch = QuantileSketch(dim, buffer_rows=buffer_rows, flat_unit=DEAD_SHARE)

    @property
    def num_rows(self) -> int:
        return self._sketch.num_rows

    def add(self, chunk: np.ndarray) -> None:
        self._sketch.add(chunk)

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        (low, median, high), (low_error, median_error, high_error) = self._sketch.quantiles((0.25, 0.5, 0.75))
        spread = high - low
        return median, spread, IQR_TO_DEVIATION * spread, np.maximum(median_error, low_error + high_error)


def _dead(center: np.ndarray, spread: np.ndarray, step: float) -> np.ndarray:
    reference = float(np.quantile(spread, 0.9)) or float(spread.max())
    return np.flatnonzero(spread <= np.maximum(DEAD_SHARE * reference, DEAD_STEPS * step * np.abs(center)))


def _error_bound(error: np.ndarray, spread: np.ndarray, dead: np.ndarray) -> float:
    lost = np.flatnonzero(~np.isfinite(error))
    if len(lost):
        raise DataError(
            f"the quartiles of {len(lost)} dimensions ({listed_dims(lost)}) lie far outside of what the first rows of the data"
            " showed. Shuffle the files, or fit with method standard."
        )
    live = np.setdiff1d(np.arange(len(spread)), dead)
    share = error[live] / spread[live]
    bad = live[share > _LARGEST_ERROR]
    if len(bad):
        warnings.warn(
            f"Median and range of {len(bad)} dimensions ({listed_dims(bad)}) may be off by up to {share.max():.1%} of the"
            " range: the first rows of the data are unlike the rest. Shuffle the files for a better fit.",
            stacklevel=3,
        )
    return float(share.max(initial=0.0))


def listed_dims(dims: Sequence[int] | np.ndarray, *, most: int = 20) -> str:
    """Dimensions as text, the first few of many."""
    rest = f" and {len(dims) - most} more" if len(dims) > most else ""
    return ", ".join(str(int(d)) for d in dims[:most]) + rest
