"""Fits center and scale of every dimension of a corpus in one streaming pass.

Shapes: C dimensions of a concept, n concepts of one chunk.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from lexalcm.errors import DataError
from lexalcm.models.normalizer.model import to_frequencies
from lexalcm.models.normalizer.statistics import NormalizerStatistics
from lexalcm.pipelines.corpus_figures import CorpusFigures, FigureCollector
from lexalcm.pipelines.fit_rule import QUARTILES, FitRule, fit_rule

DEAD_SHARE: Final = 1e-3
DEAD_STEPS: Final = 4
FEW_CONCEPTS: Final = 1000
_LARGEST_ERROR: Final = 0.01
_LARGEST_ERROR_FAR_OUT: Final = 0.03


@dataclass(frozen=True, kw_only=True)
class NormalizerFit:
    """Statistics of a corpus and how they came about."""

    center: np.ndarray
    """float32 ``[C]``."""

    scale: np.ndarray
    """float32 ``[C]``, positive; 1 in dead dimensions, or with ``meta_compatible`` what scikit-learn gives them."""

    clip_min: np.ndarray | None
    """float32 ``[C]``, bounds of normalised values; ``None`` without clipping."""

    clip_max: np.ndarray | None
    """float32 ``[C]``."""

    rule: FitRule

    num_concepts: int

    dead_dims: tuple[int, ...]
    """Dimensions without spread."""

    error_bound: float
    """The largest possible error of the center, the spread and the clip bounds of a live dimension, as a share of its
    spread (of a clip bound: of its distance from the center, where that is more); 0 when they are exact."""

    num_documents: int | None = None

    files: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        return self.rule.name

    @property
    def statistics(self) -> NormalizerStatistics:
        clip_min, clip_max = (None if x is None else torch.from_numpy(x) for x in (self.clip_min, self.clip_max))
        return NormalizerStatistics(
            center=torch.from_numpy(self.center),
            scale=torch.from_numpy(self.scale),
            clip_min=clip_min,
            clip_max=clip_max,
            with_fft=self.rule.with_fft,
        )


def fit(
    chunks: Iterable[np.ndarray], rule: FitRule | str = "robust", *, buffer_rows: int | None = None
) -> NormalizerFit:
    """Fits the statistics of a stream of concepts.

    Mean and deviation are accumulated in float64. Quantiles are exact for a corpus that fits 128 MiB of float32, and
    from a sketch beyond that.

    A dimension is *dead*, and gets scale 1, when its spread is at most 1e-3 of the 90th percentile of all spreads, or
    at most 4 rounding steps of the stored type at its center: dividing by it would blow rounding noise up. With
    ``meta_compatible`` it is dead when scikit-learn calls it constant.

    :param chunks: Arrays ``[n, C]`` of any float type.
    :param rule: What to fit, or the name of a method.
    :param buffer_rows: Rows that are kept before they are sketched.
    :raises ConfigError: The rule cannot be honoured.
    :raises DataError: No concepts, chunks of different C, an odd C to be transformed, NaN or infinity, or data so
        unlike its own beginning that the sketch cannot place a quantile.
    """
    rule = fit_rule(rule) if isinstance(rule, str) else rule
    rule.check()
    collector: FigureCollector | None = None
    step = 0.0
    for chunk in chunks:
        if len(chunk) == 0:
            continue
        if collector is None:
            dim = chunk.shape[1]
            if rule.with_fft and dim % 2:
                raise DataError(f"a Fourier transform needs concepts of even dimension, but they have {dim}.")
            collector = FigureCollector(dim, rule, buffer_rows=buffer_rows, flat_unit=DEAD_SHARE)
        if chunk.ndim != 2 or chunk.shape[1] != dim:
            raise DataError(f"concepts must have {dim} dimensions as the first ones, but some have {chunk.shape[-1]}.")
        if not np.isfinite(chunk).all():
            raise DataError(
                "concepts hold NaN or infinity. Find the rows with `fairseq2 lcm verify`, or skip bad rows."
            )
        step = max(step, float(np.finfo(chunk.dtype).eps))
        collector.add(_frequencies(chunk) if rule.with_fft else chunk)
    if collector is None:
        raise DataError("there are no concepts to fit a normalizer on.")
    return _concluded(collector.figures(), rule, step)


def _frequencies(chunk: np.ndarray) -> np.ndarray:
    return to_frequencies(torch.tensor(chunk, dtype=torch.float32)).numpy()


def _concluded(found: CorpusFigures, rule: FitRule, step: float) -> NormalizerFit:
    dead = np.flatnonzero(found.constant) if rule.as_reference else _dead(found.center, found.spread, step)
    bound = _error_bound(found, rule, dead)
    if rule.as_reference:
        # Before the range is made a deviation, which a constant dimension's 1 then becomes too.
        scale = rule.scale(np.where(found.constant, 1.0, found.spread))
    else:
        scale = rule.scale(found.spread)
        scale[dead] = 1.0
    if len(dead):
        warnings.warn(
            f"{len(dead)} of {len(scale)} dimensions have no spread and get scale {scale[dead[0]]:.4g}:"
            f" {listed_dims(dead)}.",
            stacklevel=3,
        )
    if found.num_rows < FEW_CONCEPTS:
        warnings.warn(
            f"Only {found.num_rows} concepts: too few for statistics to rely on (at least {FEW_CONCEPTS}).",
            stacklevel=3,
        )
    low, high = (None if x is None else ((x - found.center) / scale).astype(np.float32) for x in found.tails)
    return NormalizerFit(
        center=found.center.astype(np.float32),
        scale=scale.astype(np.float32),
        clip_min=low,
        clip_max=high,
        rule=rule,
        num_concepts=found.num_rows,
        dead_dims=tuple(int(d) for d in dead),
        error_bound=bound,
    )


def fit_normalizer(
    dataset: Any,
    split: str | None = "train",
    rule: FitRule | str = "robust",
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

    result = fit(_grouped(chunks()), rule)
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


def _dead(center: np.ndarray, spread: np.ndarray, step: float) -> np.ndarray:
    reference = float(np.quantile(spread, 0.9)) or float(spread.max())
    return np.flatnonzero(spread <= np.maximum(DEAD_SHARE * reference, DEAD_STEPS * step * np.abs(center)))


def _error_bound(found: CorpusFigures, rule: FitRule, dead: np.ndarray) -> float:
    lost = np.flatnonzero(~np.isfinite(found.error))
    if len(lost):
        raise DataError(
            f"the quantiles of {len(lost)} dimensions ({listed_dims(lost)}) lie far outside of what the first rows of"
            " the data showed. Shuffle the files, or fit with method standard."
        )
    live = np.setdiff1d(np.arange(len(found.spread)), dead)
    share = found.error[live] / found.spread[live]
    # Other quantiles may lie far out, where the sketch is coarser, and near each other: that much comes of any data.
    bad = live[share > (_LARGEST_ERROR if rule.quantiles == QUARTILES else _LARGEST_ERROR_FAR_OUT)]
    if len(bad):
        warnings.warn(
            f"Quantiles of {len(bad)} dimensions ({listed_dims(bad)}) may be off by up to {share.max():.1%} of their"
            " range: the first rows of the data are unlike the rest. Shuffle the files for a better fit.",
            stacklevel=4,
        )
    return float(share.max(initial=0.0))


def listed_dims(dims: Sequence[int] | np.ndarray, *, most: int = 20) -> str:
    """Dimensions as text, the first few of many."""
    rest = f" and {len(dims) - most} more" if len(dims) > most else ""
    return ", ".join(str(int(d)) for d in dims[:most]) + rest
