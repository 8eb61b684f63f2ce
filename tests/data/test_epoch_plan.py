"""Plans of epochs that ranks of changing numbers read together, without files: every row gives windows by its number."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lexalcm.data.epoch_plan import EpochPlan, PlannedPool
from lexalcm.data.saved_position import places_before, reshard

Sizes = list[tuple[tuple[int, ...], tuple[int, ...]]]

GROUPS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 400)), max_size=10)
FILES = st.lists(GROUPS, min_size=1, max_size=3).map(
    lambda files: [(tuple(n for n, _ in groups), tuple(size for _, size in groups)) for groups in files]
)


def windows_of_row(file: int, row: int) -> int:
    """None where the row is bad, or several of a long document."""
    return (7 * file + 3 * row) % 4


def windows_of(pool: PlannedPool, sizes: Sizes, seed: int | None, stream: int) -> list[tuple[int, int, int]]:
    """(file, row, window) in the order of reading."""
    found = []
    for unit in pool.units:
        before = sum(sizes[unit.file][0][: unit.first_group])
        for row in range(before + unit.start, before + unit.stop):
            found += [(unit.file, row, window) for window in range(windows_of_row(unit.file, row))]
    return [found[i] for i in pool.order(len(found), seed=seed, stream=stream).tolist()]


class Ranks:
    """So many ranks that read two streams, each at its own speed, as those of a mixture do."""

    def __init__(self, sizes: Sizes, pool_components: int, seed: int | None) -> None:
        self.sizes = sizes
        self.pool_components = pool_components
        self.seed = seed
        self.seen: list[Counter[tuple[int, int, int]]] = [Counter(), Counter()]
        self.states: list[dict[str, Any]] = []

    def begin(self, world_size: int) -> None:
        if self.states:
            self.states = reshard(self.states, world_size)
            return
        counts = {"steps": 0, "batches": 0, "documents": 0, "concepts": 0}
        for rank in range(world_size):
            streams = [{"epoch": 1, "pool": 0, "window": 0} for _ in range(2)]
            position = {"epoch": 1, "drawn": 0, "streams": streams}
            belongs = {"version": 3, "rank": rank, "world_size": world_size}
            self.states.append({"belongs": belongs, "position": position, "counts": counts})

    def pools(self, rank: int, stream: int) -> list[PlannedPool]:
        plan = EpochPlan(
            self.sizes,
            len(self.states),
            seed=self.seed,
            stream=stream,
            pool_components=self.pool_components,
            window_components=40,
        )
        position = self.states[rank]["position"]
        epoch = position["streams"][stream]["epoch"]
        return plan.pools(epoch, rank, places_before(position.get("before", []), stream, epoch=epoch))

    def read(self, rank: int, stream: int, count: int | None, *, stays_behind: bool = False) -> None:
        """
        :param count: Of windows; ``None`` reads to the epoch's end, and begins the next.
        :param stays_behind: Whether a pool that is read through is left at its end, and not for the next.
        """
        place = self.states[rank]["position"]["streams"][stream]
        pools = self.pools(rank, stream)
        while place["pool"] < len(pools):
            left = windows_of(pools[place["pool"]], self.sizes, self.seed, stream)[place["window"] :]
            taken = left[:count]
            self.seen[stream].update(taken)
            place["window"] += len(taken)
            if count is not None:
                count -= len(taken)
            if len(taken) < len(left) or (count == 0 and stays_behind):
                return
            place["pool"], place["window"] = place["pool"] + 1, 0
        if count is None:
            place["epoch"], place["pool"] = place["epoch"] + 1, 0


@given(
    FILES,
    st.sampled_from([1, 300, 10**6]),
    st.sampled_from([None, 3]),
    st.lists(st.integers(1, 5), min_size=2, max_size=5),
    st.data(),
)
@settings(max_examples=50, deadline=None)
def test_every_window_is_read_once_an_epoch_however_often_the_number_of_ranks_changes(
    sizes: Sizes, pool_components: int, seed: int | None, worlds: list[int], data: st.DataObject
) -> None:
    ranks = Ranks(sizes, pool_components, seed)
    for world_size in worlds:
        ranks.begin(world_size)
        for rank in range(world_size):
            for stream in range(2):
                count = data.draw(st.sampled_from([0, 1, 2, 5, 20, None]))
                ranks.read(rank, stream, count, stays_behind=data.draw(st.booleans()))
    ranks.begin(1)
    for stream in range(2):
        epoch = ranks.states[0]["position"]["streams"][stream]["epoch"]
        ranks.read(0, stream, None)
        assert ranks.seen[stream] == {
            (file, row, window): epoch
            for file, (rows, _) in enumerate(sizes)
            for row in range(sum(rows))
            for window in range(windows_of_row(file, row))
        }


def test_an_epoch_that_was_not_begun_is_dealt_anew_though_another_stream_was() -> None:
    sizes = [((4,) * 6, (40,) * 6)]
    ranks, fresh = Ranks(sizes, 80, 3), Ranks(sizes, 80, 3)
    ranks.begin(2)
    ranks.read(0, 1, 3)
    ranks.begin(3)
    fresh.begin(3)
    for rank in range(3):
        assert ranks.pools(rank, 0) == fresh.pools(rank, 0)
    assert [ranks.pools(rank, 1) for rank in range(3)] != [fresh.pools(rank, 1) for rank in range(3)]


def test_files_that_are_not_shuffled_stay_in_order() -> None:
    sizes = [((4,) * 12, (40,) * 12)]
    ranks = Ranks(sizes, 80, None)
    ranks.begin(2)
    ranks.begin(2)
    for rank in range(2):
        ranks.read(rank, 0, 9)
    ranks.begin(1)
    groups = [unit.first_group for pool in ranks.pools(0, 0) if not pool.left for unit in pool.units]
    assert groups == sorted(groups) and len(groups) > 4


def test_a_begun_pool_is_cut_only_where_one_rank_would_have_more_than_the_others() -> None:
    sizes = [((10,) * 40, (100,) * 40)]
    ranks = Ranks(sizes, 200, 3)
    ranks.begin(1)
    ranks.read(0, 0, 5)
    ranks.begin(4)
    begun = [pool for rank in range(4) for pool in ranks.pools(rank, 0) if pool.left]
    assert len(begun) == 1
    ranks = Ranks(sizes, 10**6, 3)
    ranks.begin(1)
    ranks.read(0, 0, 5)
    ranks.begin(4)
    assert [[len(windows_of(pool, sizes, 3, 0)) for pool in ranks.pools(rank, 0)] for rank in range(4)] == [
        [148],
        [149],
        [149],
        [149],
    ]
