"""Units, ranks and pools: every row once, whatever the sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexalcm.data.order import Unit, group_into_pools, split_finer, split_into_units, units_by_rank, units_of_file

FILES = st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5000)), max_size=8), min_size=1, max_size=4)


def rows_of(units: list[Unit], files: list) -> list[tuple[int, int]]:
    """(file, row) of every row in the order of reading."""
    rows = []
    for unit in units:
        before = sum(n for n, _ in files[unit.file][: unit.first_group])
        inside = sum(n for n, _ in files[unit.file][unit.first_group : unit.last_group + 1])
        assert 0 <= unit.start < unit.stop <= inside
        rows += [(unit.file, before + row) for row in range(unit.start, unit.stop)]
    return rows


@given(FILES, st.integers(1, 5), st.sampled_from([1, 300, 10**6]), st.sampled_from([None, 3]))
@settings(max_examples=150, deadline=None)
def test_the_ranks_share_every_row_of_an_epoch(files: list, world_size: int, pool: int, seed: int | None) -> None:
    sizes = [(tuple(n for n, _ in groups), tuple(size for _, size in groups)) for groups in files]
    everything = [(f, row) for f, groups in enumerate(files) for row in range(sum(n for n, _ in groups))]
    units = split_into_units(sizes, world_size, pool_components=pool)
    assert rows_of(units, files) == everything
    found = []
    for mine in units_by_rank(units, seed=seed, epoch=2, stream=0, world_size=world_size):
        pools = group_into_pools(mine, components=pool)
        assert all(pools)
        assert rows_of([u for p in pools for u in p], files) == rows_of(mine, files)
        found += rows_of(mine, files)
    assert sorted(found) == everything


def test_a_pool_holds_no_more_than_it_may() -> None:
    sizes = [((1000, 10, 500), (100_000, 1_000, 50_000))]
    units = split_into_units(sizes, 1, pool_components=20_000)
    for pool in group_into_pools(units, components=20_000):
        assert sum(unit.components for unit in pool) <= 20_000
    assert all(unit.components <= 32_768 for unit in units_of_file((1000,), (10_000_000,), concept_dim=1))


def test_small_row_groups_are_read_together() -> None:
    units = split_into_units([((5,) * 20_000, (100,) * 20_000)], 1, pool_components=100_000)
    assert len(units) <= 20_000 * 100 / (100_000 / 16) * 1.1


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_get_about_as_much_as_each_other(world_size: int) -> None:
    units = split_into_units([((100,) * 64, tuple(range(1, 65)))], world_size, pool_components=64)
    loads = [
        sum(u.components for u in mine)
        for mine in units_by_rank(units, seed=1, epoch=1, stream=0, world_size=world_size)
    ]
    assert max(loads) - min(loads) <= 64


def test_one_row_group_serves_all_ranks() -> None:
    units = split_into_units([((10,), (100,))], 3, pool_components=1000)
    assert [(u.start, u.stop) for u in units] == [(0, 3), (3, 6), (6, 10)]


def test_the_order_is_that_of_seed_and_epoch() -> None:
    units = split_into_units([((1,) * 50, (10**6,) * 50)], 1, pool_components=10**6)

    def order(seed: int, epoch: int) -> list[int]:
        (mine,) = units_by_rank(units, seed=seed, epoch=epoch, stream=0, world_size=1)
        return [u.first_group for u in mine]

    assert order(1, 1) == order(1, 1) and order(1, 1) != order(1, 2) and order(1, 1) != order(2, 1)


@given(FILES, st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 300, 10**6]))
@settings(max_examples=100, deadline=None)
def test_units_split_finer_have_the_same_rows(files: list, world_size: int, others: int, pool: int) -> None:
    sizes = [(tuple(n for n, _ in groups), tuple(size for _, size in groups)) for groups in files]
    units = split_into_units(sizes, others, pool_components=pool)
    total = sum(unit.components for unit in units)
    finer = split_finer(units, sizes, world_size, components=total)
    assert rows_of(finer, files) == rows_of(units, files)


def test_few_units_that_are_left_serve_all_ranks() -> None:
    sizes = [((5,) * 8, (50,) * 8)]
    merged = Unit(0, 0, 7, 0, 40, 400)
    finer = split_finer([merged], sizes, 4, components=400)
    assert len(finer) == 16 and all(part.first_group == part.last_group for part in finer)
    assert split_finer([merged], sizes, 1, components=400) == [merged]
