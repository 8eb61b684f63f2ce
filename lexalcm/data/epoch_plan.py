"""Which pools a rank reads in an epoch, also where ranks of another number have begun it.

What those ranks left is known from where they stood. Pools that none has begun are taken apart and dealt as an epoch's
units are. Which windows of a begun pool are left only its whole order tells: the pool is read again, and the rest of
the order goes to one rank, or in shares to several where one would otherwise have more to do than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise, repeat

import numpy as np

from lexalcm.data.order import (
    Unit,
    append_joined,
    deal,
    document_order,
    group_into_pools,
    split_finer,
    split_into_units,
    units_by_rank,
)

Place = tuple[int, int, int]
"""Where a rank stands: epoch, pool, window."""


@dataclass(frozen=True)
class PlannedPool:
    """Units whose windows are read and shuffled together, or what is left of them."""

    units: list[Unit]

    epoch: int
    """Of the order of its windows, as the next."""

    number: int

    left: tuple[tuple[int, int, int, int], ...] = ()
    """Of a pool that was begun: how many windows are gone, and from where to where of which length the others are meant;
    then the same of those, where the number of ranks has changed again."""

    def order(self, count: int, *, seed: int | None, stream: int) -> np.ndarray:
        """The windows to hand out, int64, of the ``count`` that its units hold."""
        order = document_order(count, seed=seed, epoch=self.epoch, stream=stream, pool=self.number)
        for gone, start, stop, length in self.left:
            order = order[gone:]
            order = order[len(order) * start // length : len(order) * stop // length]
        return order


class EpochPlan:
    """Plans the epochs of a stream."""

    def __init__(
        self,
        sizes: list[tuple[tuple[int, ...], tuple[int, ...]]],
        world_size: int,
        *,
        seed: int | None,
        stream: int,
        pool_components: int,
        window_components: int,
    ) -> None:
        """
        :param sizes: For each file, rows and components by row group.
        :param pool_components: What is in memory together.
        :param window_components: What the longest window has.
        """
        self._sizes = sizes
        self._world_size = world_size
        self._seed = seed
        self._stream = stream
        self._pool_components = pool_components
        self._window_components = window_components
        self._units = self._split(world_size)

    def _split(self, world_size: int) -> list[Unit]:
        return split_into_units(self._sizes, world_size, pool_components=self._pool_components)

    def pools(self, epoch: int, rank: int, before: Sequence[Sequence[Place]] = ()) -> list[PlannedPool]:
        """
        :param before: Where the ranks stood whenever others took over from them, the earliest first. The others read
            what is left of the latest epoch among these places, and of those before it that some rank had not begun.
        """
        return self._group(*self._deal(epoch, self._world_size, before)[rank], epoch)

    def _deal(
        self, epoch: int, world_size: int, before: Sequence[Sequence[Place]]
    ) -> list[tuple[list[PlannedPool], list[Unit]]]:
        """Begun pools and units by rank."""
        if not before or epoch > latest_epoch(before[-1]):
            units = self._units if world_size == self._world_size else self._split(world_size)
            dealt = units_by_rank(units, seed=self._seed, epoch=epoch, stream=self._stream, world_size=world_size)
            return [([], some) for some in dealt]
        begun, units = self._left_by(before)
        total = sum(size for _, size in begun) + sum(unit.components for unit in units)
        shares = deal(((item, item[1]) for item in begun), world_size)
        loads = [sum(size for _, size in some) for some in shares]
        if max(loads) * world_size >= total + world_size:
            shares = _share_evenly(begun, world_size)
            loads = [sum(size for _, size in some) for some in shares]
        finer = split_finer(units, self._sizes, world_size, components=total)
        dealt = deal(((unit, max(unit.components, 1)) for unit in finer), world_size, loads=loads)
        return [([pool for pool, _ in some], mine) for some, mine in zip(shares, dealt)]

    def _left_by(self, before: Sequence[Sequence[Place]]) -> tuple[list[tuple[PlannedPool, int]], list[Unit]]:
        """Begun pools, each with about as many components as are left in it, and the units of the others."""
        *earlier, places = before
        epochs = range(min(epoch for epoch, _, _ in places), latest_epoch(places) + 1)
        dealt = {epoch: self._deal(epoch, len(places), earlier) for epoch in epochs}
        begun: list[tuple[PlannedPool, int]] = []
        units: list[Unit] = []
        for rank, (first_epoch, number, window) in enumerate(places):
            pools = [
                pool for epoch in epochs if epoch >= first_epoch for pool in self._group(*dealt[epoch][rank], epoch)
            ]
            for pool, gone in zip(pools[number:], chain([window], repeat(0))):
                if gone or pool.left:
                    pool = replace(pool, left=(*pool.left, (gone, 0, 1, 1)))
                    begun.append((pool, self._components_left(pool)))
                else:
                    units += pool.units
        if self._seed is None:
            units.sort(key=lambda unit: (unit.file, unit.first_group, unit.start))
        joined: list[Unit] = []
        for unit in units:
            append_joined(joined, unit)
        return begun, joined

    def _components_left(self, pool: PlannedPool) -> int:
        """An estimate: how long documents are shows only when they are read."""
        rows = sum(unit.stop - unit.start for unit in pool.units)
        components = sum(unit.components for unit in pool.units)
        # A document gives one window, or one for each full window that it has and half a one more.
        windows = left = max(rows, rows / 2 + components / self._window_components)
        for gone, start, stop, length in pool.left:
            left = max(left - gone, 0.0) * (stop - start) / length
        return max(int(components * left / windows), 1)

    def _group(self, begun: list[PlannedPool], units: list[Unit], epoch: int) -> list[PlannedPool]:
        pools = group_into_pools(units, components=self._pool_components)
        return begun + [PlannedPool(some, epoch, number) for number, some in enumerate(pools, start=len(begun))]


def latest_epoch(places: Sequence[Place]) -> int:
    """The epoch that is left to others who take over from ranks in these places."""
    return max(epoch for epoch, _, _ in places)


def _share_evenly(begun: list[tuple[PlannedPool, int]], world_size: int) -> list[list[tuple[PlannedPool, int]]]:
    """Lays pools end to end and cuts the line in as many parts as there are ranks, so that few pools are cut."""
    total = sum(size for _, size in begun)
    edges = [total * rank // world_size for rank in range(world_size + 1)]
    shares: list[list[tuple[PlannedPool, int]]] = [[] for _ in range(world_size)]
    first = 0
    for pool, size in begun:
        *earlier, (gone, _, _, _) = pool.left
        for mine, (low, high) in zip(shares, pairwise(edges)):
            start, stop = max(low - first, 0), min(high - first, size)
            if start < stop:
                mine.append((replace(pool, left=(*earlier, (gone, start, stop, size))), stop - start))
        first += size
    return shares
