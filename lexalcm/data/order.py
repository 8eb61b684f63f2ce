"""Which rank reads which rows in an epoch, and in which order: a function of seed, epoch and world size alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np

T = TypeVar("T")

_UNITS_A_POOL: Final = 16
_UNITS_A_RANK: Final = 4
_CONCEPTS_AT_A_TIME: Final = 32_768


@dataclass(frozen=True)
class Unit:
    """Rows that are read together: small row groups that follow each other, or one, or a part of a large one."""

    file: int
    """Index of the file."""

    first_group: int

    last_group: int
    """Inclusive; the same as ``first_group`` in a part of a row group."""

    start: int
    """First row, counted from the start of ``first_group``."""

    stop: int
    """Row behind the last, counted likewise."""

    components: int
    """Components of its vectors, as far as the footer tells."""


def split_into_units(
    sizes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]], world_size: int, *, pool_components: int
) -> list[Unit]:
    """Lists units in file order: many to a pool, and some to each rank, if row groups allow.

    :param sizes: For each file, rows and components by row group.
    :param pool_components: What is in memory together.
    """
    groups = [
        Unit(file, group, group, 0, num_rows, size)
        for file, (rows, components) in enumerate(sizes)
        for group, (num_rows, size) in enumerate(zip(rows, components))
        if num_rows
    ]
    if world_size > 1 and len(groups) < _UNITS_A_RANK * world_size:
        return [part for unit in groups for part in cut(unit, world_size)]
    total = sum(unit.components for unit in groups)
    # Thousands of tiny row groups would cost more in calls than in reading.
    return _merge(groups, components=min(pool_components // _UNITS_A_POOL, total // (2 * _UNITS_A_RANK * world_size)))


def units_of_file(rows: tuple[int, ...], components: tuple[int, ...], *, concept_dim: int) -> list[Unit]:
    """Units of one file in order, for reading it from start to end in little memory."""
    limit = _CONCEPTS_AT_A_TIME * concept_dim
    groups = split_into_units([(rows, components)], 1, pool_components=limit)
    return [unit for pool in group_into_pools(groups, components=limit) for unit in pool]


def _merge(units: list[Unit], *, components: int) -> list[Unit]:
    merged: list[Unit] = []
    for unit in units:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.file == unit.file
            and last.last_group + 1 == unit.first_group
            and last.components + unit.components <= components
        ):
            merged[-1] = replace(
                last,
                last_group=unit.last_group,
                stop=last.stop + unit.stop,
                components=last.components + unit.components,
            )
        else:
            merged.append(unit)
    return merged


def cut(unit: Unit, parts: int) -> list[Unit]:
    """Cuts a row group into parts of about as many rows each."""
    parts = max(1, min(parts, unit.stop - unit.start))
    if parts == 1 or unit.first_group != unit.last_group:
        return [unit]
    edges = np.linspace(unit.start, unit.stop, parts + 1).astype(int).tolist()
    return [replace(unit, start=a, stop=b, components=unit.components // parts) for a, b in pairwise(edges)]


def split_finer(
    units: list[Unit],
    sizes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    world_size: int,
    *,
    components: int,
) -> list[Unit]:
    """Splits what is left of an epoch where it is few units for so many ranks.

    :param sizes: For each file, rows and components by row group.
    :param components: What all ranks are to read together.
    """
    if world_size == 1 or len(units) >= _UNITS_A_RANK * world_size:
        return units
    limit = max(components // (_UNITS_A_RANK * world_size), 1)
    groups = [group for unit in units for group in (_groups_of(unit, sizes) if unit.components > limit else [unit])]
    return [part for group in groups for part in cut(group, -(-group.components // limit))]


def _groups_of(unit: Unit, sizes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Unit]:
    if unit.first_group == unit.last_group:
        return [unit]
    rows, components = sizes[unit.file]
    groups = range(unit.first_group, unit.last_group + 1)
    return [Unit(unit.file, group, group, 0, rows[group], components[group]) for group in groups if rows[group]]


def units_by_rank(units: list[Unit], *, seed: int | None, epoch: int, stream: int, world_size: int) -> list[list[Unit]]:
    """Deals an epoch's units to the ranks, each as much as the others as far as units allow.

    :param seed: None keeps the order of the files.
    :param stream: Tells the sources of a mixture apart.
    """
    order = units
    if seed is not None:
        order = [units[i] for i in np.random.default_rng([seed, epoch, stream, 0]).permutation(len(units))]
    if world_size == 1:
        return [order]
    return deal(((unit, max(unit.components, 1)) for unit in order), world_size)


def deal(items: Iterable[tuple[T, int]], world_size: int, *, loads: Sequence[int] | None = None) -> list[list[T]]:
    """The least loaded rank takes the next item, which comes with its size; equal loads go to the lower rank.

    :param loads: What each rank has already.
    """
    heap = [(load, rank) for rank, load in enumerate(loads or [0] * world_size)]
    heapify(heap)
    by_rank: list[list[T]] = [[] for _ in range(world_size)]
    for item, size in items:
        load, owner = heap[0]
        heapreplace(heap, (load + size, owner))
        by_rank[owner].append(item)
    return by_rank


def group_into_pools(units: list[Unit], *, components: int) -> list[list[Unit]]:
    """Puts successive units together up to ``components``: what is shuffled and in memory together.

    A row group that is larger is read in parts, which stay in order: reading one of them passes over those before it.
    """
    pools: list[list[Unit]] = []
    size = 0
    for whole in units:
        for unit in cut(whole, -(-2 * whole.components // components) if whole.components > components // 2 else 1):
            if not pools or size + unit.components > components:
                pools.append([])
                size = 0
            # Parts of one row group are read one after the other in any case.
            append_joined(pools[-1], unit)
            size += unit.components
    return pools


def append_joined(units: list[Unit], unit: Unit) -> None:
    """Appends a unit; one that goes on where the last ends becomes one with it."""
    last = units[-1] if units else None
    if last is not None and (last.file, last.last_group, last.stop) == (unit.file, unit.first_group, unit.start):
        units[-1] = replace(unit, start=last.start, components=last.components + unit.components)
    else:
        units.append(unit)


def document_order(count: int, *, seed: int | None, epoch: int, stream: int, pool: int) -> np.ndarray:
    """The order of a pool's windows, int64 ``[count]``."""
    if seed is None:
        return np.arange(count)
    return np.random.default_rng([seed, epoch, stream, 1 + pool]).permutation(count)
