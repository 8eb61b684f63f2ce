"""Which rank reads which rows in an epoch, and in which order: a function of seed, epoch and world size alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np


@dataclass(frozen=True)
class Unit:
    """A row group of a file, or a part of one: what is read at a time."""

    file: int
    """Index of the file."""

    row_group: int

    start: int
    """First row within the row group."""

    stop: int

    components: int
    """Components of its vectors, as far as the footer tells."""


def split_into_units(sizes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]], world_size: int) -> list[Unit]:
    """Lists the row groups of files in order; where there are too few for the ranks, each is cut by rows.

    :param sizes: For each file, rows and components by row group.
    """
    units = [
        Unit(file, group, 0, num_rows, size)
        for file, (rows, components) in enumerate(sizes)
        for group, (num_rows, size) in enumerate(zip(rows, components))
        if num_rows
    ]
    if world_size == 1 or len(units) >= 4 * world_size:
        return units
    parts = []
    for unit in units:
        edges = np.linspace(0, unit.stop, min(world_size, unit.stop) + 1).astype(int).tolist()
        share = unit.components // (len(edges) - 1)
        parts += [Unit(unit.file, unit.row_group, a, b, share) for a, b in zip(edges[:-1], edges[1:])]
    return parts


def units_of_rank(units: list[Unit], *, seed: int | None, epoch: int, stream: int, rank: int, world_size: int) -> list[Unit]:
    """Deals an epoch's units to the ranks, each as much as the others as far as units allow.

    :param seed: None keeps the order of the files.
    :param stream: Tells the sources of a mixture apart.
    """
    order = units
    if seed is not None:
        order = [units[i] for i in np.random.default_rng([seed, epoch, stream, 0]).permutation(len(units))]
    if world_size == 1:
        return order
    # The least loaded rank takes the next unit; equal loads go to the lower rank.
    loads = [(0, r) for r in range(world_size)]
    heapify(loads)
    mine = []
    for unit in order:
        load, owner = loads[0]
        heapreplace(loads, (load + max(unit.components, 1), owner))
        if owner == rank:
            mine.append(unit)
    return mine


def group_into_pools(units: list[Unit], *, components: int) -> list[list[Unit]]:
    """Puts successive units together until they hold ``components``: what is shuffled and in memory together."""
    pools: list[list[Unit]] = []
    size = components
    for unit in units:
        if size >= components:
            pools.append([])
            size = 0
        pools[-1].append(unit)
        size += unit.components
    return pools


def document_order(count: int, *, seed: int | None, epoch: int, stream: int, pool: int) -> np.ndarray:
    """The order of a pool's windows, int64 ``[count]``."""
    if seed is None:
        return np.arange(count)
    return np.random.default_rng([seed, epoch, stream, 1 + pool]).permutation(count)
