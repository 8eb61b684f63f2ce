"""Another number of ranks goes on where some stopped: nothing of the epoch is lost, nothing comes twice."""

from __future__ import annotations

import copy
import io
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexalcm.data.batch import ConceptBatch
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.saved_position import reshard
from lexalcm.data.sources import ConceptParquetConfig, SourceConfig
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import DataError
from tests.data.pairs import open_pairs, write_pairs
from tests.data.readers import LENGTHS, names, on_ranks, reading, saved, write

States = list[dict[str, Any]]
TO_THE_END = 1000


def plain(folder: Path) -> ConceptParquetDataset:
    write(folder / "d", LENGTHS[:12], name="a.parquet")
    write(folder / "d", LENGTHS[12:], first=12, name="b.parquet")
    return ConceptParquetDataset(ConceptParquetConfig(path=str(folder / "d")))


def run(
    dataset: ConceptParquetDataset,
    world_size: int,
    num_steps: int = TO_THE_END,
    states: States | None = None,
    *,
    reset: bool = False,
    num_accumulate: int = 2,
    see: Callable[[list[ConceptBatch]], Any] = names,
    **fields: Any,
) -> tuple[list[list[Any]], States]:
    """Runs ranks for so many steps, or to the epoch's end: what ``see`` tells of each step by rank, and the states."""

    def run_rank(rank: int, any_rank: Callable[[bool], bool]) -> tuple[list[Any], dict[str, Any]]:
        reader = dataset.create_reader(
            None,
            reading(**fields),
            rank=rank,
            world_size=world_size,
            num_accumulate=num_accumulate,
            any_rank=any_rank,
        )
        if states is not None:
            reader.load_state_dict(copy.deepcopy(states[rank]))
            assert saved(reader) == states[rank]
        seen = [see(batches) for _, batches in zip(range(num_steps), reader)]
        if reset:
            reader.reset()
        state = saved(reader)
        reader.close()
        return seen, state

    found = on_ranks(world_size, run_rank)
    assert len({len(seen) for seen, _ in found}) == 1
    return [seen for seen, _ in found], [state for _, state in found]


def flat(by_rank: list[list[list[str]]]) -> list[str]:
    return [name for steps in by_rank for step in steps for name in step]


def at_epoch(number: int, dataset: ConceptParquetDataset, world_size: int, **fields: Any) -> States:
    """Where fresh ranks stand at the beginning of a later epoch."""
    _, states = run(dataset, world_size, 0, **fields)
    for state in states:
        state["position"]["epoch"] = state["position"]["streams"][0]["epoch"] = number
    return states


SMALL = {"max_seq_len": 4, "concepts_per_batch": 6, "shuffle_window": 16}
PAIRS = [(old, new) for old in (1, 2, 3, 4) for new in (1, 2, 3, 4) if old != new]
SHORT = [(1, 2), (3, 1), (4, 3)]


@pytest.mark.parametrize(
    ("old", "new"), [pytest.param(*pair, marks=() if pair in SHORT else pytest.mark.long) for pair in PAIRS]
)
def test_every_window_comes_once_and_the_next_epoch_is_that_of_any_run_of_the_new_number(
    old: int, new: int, tmp_path: Path
) -> None:
    dataset = plain(tmp_path)
    everything = sorted(flat(run(dataset, 1, **SMALL)[0]))
    assert len(set(everything)) == len(everything)
    whole, _ = run(dataset, old, **SMALL)
    expected = run(dataset, new, 3, at_epoch(2, dataset, new, **SMALL), **SMALL)
    # Its beginning, its end, and some places between.
    for stop in sorted({0, 1, len(whole[0]) // 2, len(whole[0]) - 1, len(whole[0])}):
        first, states = run(dataset, old, stop, **SMALL)
        second, states = run(dataset, new, states=reshard(states, new), reset=True, **SMALL)
        assert sorted(flat(first) + flat(second)) == everything, stop
        assert all("before" not in state["position"] for state in states)
        assert run(dataset, new, 3, states, **SMALL)[0] == expected[0]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"shuffle": False, "shuffle_window": 8},
        {"hold_out_every": 3, "min_document_len": 2, "prefetch": 0},
        {"concepts_per_batch": None, "documents_per_batch": 2, "num_accumulate": 3},
        {"shuffle_window": 1000, "num_workers": 3},
        {"shuffle_window": 1, "max_seq_len": 16, "concepts_per_batch": 16, "num_accumulate": 1},
    ],
    ids=["windows", "in order", "held out", "documents", "one pool", "tiny pools"],
)
@pytest.mark.parametrize(
    "worlds",
    [(1, 3, 2, 4), *(pytest.param(worlds, marks=pytest.mark.long) for worlds in [(4, 1, 3), (3, 2, 1, 2), (2, 5, 2)])],
)
def test_the_number_may_change_again_within_an_epoch(
    worlds: tuple[int, ...], fields: dict[str, Any], tmp_path: Path
) -> None:
    dataset, fields = plain(tmp_path), {**SMALL, **fields}
    everything = sorted(flat(run(dataset, 1, **fields)[0]))
    seen: list[str] = []
    states = None
    for number, world_size in enumerate(worlds):
        states = None if states is None else reshard(states, world_size)
        steps, states = run(dataset, world_size, 1 if number + 1 < len(worlds) else TO_THE_END, states, **fields)
        seen += flat(steps)
    assert sorted(seen) == everything


def test_a_run_killed_anywhere_in_what_it_took_over_goes_on_with_the_same_steps(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    _, states = run(dataset, 3, 1, **SMALL)
    _, states = run(dataset, 1, 2, reshard(states, 1), **SMALL)
    taken_over = reshard(states, 2)
    whole, _ = run(dataset, 2, states=taken_over, **SMALL)
    for stop in range(len(whole[0]) + 1):
        first, states = run(dataset, 2, stop, taken_over, **SMALL)
        second, _ = run(dataset, 2, states=states, **SMALL, prefetch=stop % 3)
        assert [a + b for a, b in zip(first, second)] == whole


@pytest.mark.parametrize("reset", [False, True])
def test_at_the_end_of_an_epoch_nothing_is_left_to_take_over(reset: bool, tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    _, states = run(dataset, 3, reset=reset, **SMALL)
    states = reshard(states, 2)
    if not reset:
        left, states = run(dataset, 2, states=states, reset=True, **SMALL)
        assert left == [[], []]
    assert [state["position"] for state in states] == [
        {"epoch": 2, "drawn": 0, "streams": [{"epoch": 2, "pool": 0, "window": 0}]}
    ] * 2
    assert (
        run(dataset, 2, states=states, **SMALL)[0]
        == run(dataset, 2, states=at_epoch(2, dataset, 2, **SMALL), **SMALL)[0]
    )


def test_before_the_first_step_another_number_of_ranks_begins_a_run_of_its_own(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    for old, new in PAIRS:
        assert reshard(run(dataset, old, 0)[1], new) == run(dataset, new, 0)[1]


def test_ranks_that_were_through_when_others_were_not_leave_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path, [40, 1, 1], per_group=1)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    everything = sorted(flat(run(dataset, 1, **SMALL)[0]))
    first, states = run(dataset, 3, 3, **SMALL)
    assert [len(steps[-1]) > 0 for steps in first].count(False) == 2
    for new in (1, 2, 4):
        second, _ = run(dataset, new, states=reshard(states, new), **SMALL)
        assert sorted(flat(first) + flat(second)) == everything


def test_the_same_number_changes_nothing(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    _, states = run(dataset, 2, 2, **SMALL)
    assert reshard(states, 2) == states
    taken_over = reshard(states, 3)
    assert reshard(taken_over, 3) == taken_over


def test_a_change_that_nothing_was_read_after_is_undone(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    _, states = run(dataset, 2, 2, **SMALL)
    _, later = run(dataset, 3, 1, reshard(states, 3), **SMALL)
    for there in (states, later):
        for passing in (1, 4, 5):
            back = reshard(reshard(there, passing), len(there))
            assert [s["position"] for s in back] == [s["position"] for s in there]
            assert [s["belongs"] for s in back] == [s["belongs"] for s in there]
            assert reshard(reshard(there, passing), 6) == reshard(back, 6)


def test_pairs_of_source_and_target_are_dealt_like_documents(tmp_path: Path) -> None:
    dataset = open_pairs(write_pairs(tmp_path))
    fields = {"max_seq_len": 12, "concepts_per_batch": 12, "shuffle_window": 20}
    everything = sorted(flat(run(dataset, 1, **fields)[0]))
    first, states = run(dataset, 1, 1, num_accumulate=1, **fields)
    second, _ = run(dataset, 3, states=reshard(states, 3), **fields)
    assert sorted(flat(first) + flat(second)) == everything and all(flat([steps]) for steps in second)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("new", [1, 3])
def test_bad_documents_are_told_once(new: int, shuffle: bool, tmp_path: Path) -> None:
    documents = [NewDocument(["s"] * 3, np.ones((3, 4), np.float32)) for _ in range(32)]
    for number, document in enumerate(documents):
        if number % 4 == 1 or number >= 24:
            document.concepts[1] = np.nan
    write_documents(tmp_path / "part-0.parquet", documents, dtype="float32", concepts_per_row_group=12)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path), on_bad_rows="skip"))
    fields = {"max_seq_len": 3, "concepts_per_batch": 6, "shuffle_window": 20, "shuffle": shuffle}

    def skipped(batches: list[ConceptBatch]) -> tuple[int, bool]:
        return sum(sum(batch.skipped.values()) for batch in batches), any(batch.ids is not None for batch in batches)

    num_exact = 0
    for stop in range(5):
        told, states = 0, None
        for world_size, num_steps in ((2, stop), (new, 1), (2, TO_THE_END)):
            states = None if states is None else reshard(states, world_size)
            by_rank, states = run(dataset, world_size, num_steps, states, num_accumulate=1, see=skipped, **fields)
            told += sum(count for steps in by_rank for count, _ in steps)
        assert told <= 14, stop
        # A rank without any good document left has no batch to tell with.
        if all(any(is_real for _, is_real in steps) for steps in by_rank):
            assert told == 14, stop
            num_exact += 1
    assert num_exact >= 2


def test_every_epoch_of_a_weighted_source_is_read_through_whoever_reads_it(tmp_path: Path) -> None:
    sources = []
    for name, count, weight in (("few", 9, 2.0), ("many", 25, 1.0)):
        write(tmp_path / name, [4, 9, 1, 7, 3] * (count // 5) + [4] * (count % 5))
        sources.append(SourceConfig(path=str(tmp_path / name), weight=weight))
    dataset = ConceptParquetDataset(ConceptParquetConfig(sources=sources))
    rng = np.random.default_rng(3)
    seen: Counter[str] = Counter()
    states: States | None = None
    for world_size in [2, 3, 1, 4, 2, 3, 3, 2, 4, 1, 2, 1]:
        states = None if states is None else reshard(states, world_size)
        for _ in range(int(rng.integers(1, 4))):
            steps, states = run(dataset, world_size, int(rng.integers(1, 5)), states, **SMALL)
            seen.update(flat(steps))
            if rng.random() < 0.5:
                steps, states = run(dataset, world_size, TO_THE_END, states, reset=True, **SMALL)
                seen.update(flat(steps))
    for _ in range(12):
        steps, states = run(dataset, 1, TO_THE_END, states, reset=True, **SMALL)
        seen.update(flat(steps))
        assert states is not None
        if "before" not in states[0]["position"]:
            break
    assert states is not None and "before" not in states[0]["position"]
    for number, (name, num_windows) in enumerate((("few", 12), ("many", 40))):
        epoch = states[0]["position"]["streams"][number]["epoch"]
        times = Counter(count for key, count in seen.items() if key.startswith(f"{name}:"))
        assert times.total() == num_windows and epoch > 2
        # All of the epochs before, and of this one a part.
        assert set(times) <= {epoch - 1, epoch}


def test_draws_of_any_earlier_rank_are_not_drawn_again(tmp_path: Path) -> None:
    _, states = run(plain(tmp_path), 3, 1, **SMALL)
    for state, drawn in zip(states, (4, 9, 2)):
        state["position"]["drawn"] = drawn
    assert [state["position"]["drawn"] for state in reshard(states, 2)] == [9, 9]


@pytest.mark.parametrize("per_group", [20, 1000], ids=["row groups", "one row group"])
@pytest.mark.parametrize("shuffle_window", [60, 10_000], ids=["pools", "one pool"])
def test_what_is_left_is_dealt_evenly(per_group: int, shuffle_window: int, tmp_path: Path) -> None:
    write(tmp_path, [3] * 200, per_group=per_group)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    fields = {"concepts_per_batch": 16, "shuffle_window": shuffle_window, "num_accumulate": 1}
    _, states = run(dataset, 1, 8, **fields)
    second, _ = run(dataset, 4, states=reshard(states, 4), **fields)
    loads = [len(flat([steps])) for steps in second]
    assert sum(loads) == 160 and max(loads) <= 50
    first, states = run(dataset, 4, 2, **fields)
    third, _ = run(dataset, 3, states=reshard(states, 3), **fields)
    loads = [len(flat([steps])) for steps in third]
    assert sum(loads) == 160 and max(loads) <= 75


def test_ranks_read_what_was_dealt_to_them_and_begun_pools_alone(tmp_path: Path) -> None:
    write(tmp_path, [3] * 400)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    _, states = run(dataset, 4, 5, **SMALL)
    for new in (1, 2, 3):

        def rows_read(
            rank: int, any_rank: Callable[[bool], bool], states: States = reshard(states, new), new: int = new
        ) -> tuple[int, int]:
            reader = dataset.create_reader(None, reading(**SMALL), rank=rank, world_size=new, any_rank=any_rank)
            reader.load_state_dict(states[rank])
            return sum(len(names(step)) for step in reader), reader.bad_rows.seen

        # Four pools were begun, of up to 5 documents each, and each is read by one rank.
        by_rank = on_ranks(new, rows_read)
        assert sum(seen for _, seen in by_rank) <= sum(given for given, _ in by_rank) + 4 * 5
        assert max(seen for _, seen in by_rank) <= 400 / new


@pytest.mark.parametrize("new", [1, 2, 5])
def test_counts_are_kept_in_sum_and_steps_on_each_rank(new: int, tmp_path: Path) -> None:
    _, states = run(plain(tmp_path), 3, 2, **SMALL)
    after = reshard(states, new)
    for name in ("batches", "documents", "concepts"):
        assert sum(s["counts"][name] for s in after) == sum(s["counts"][name] for s in states) > 0
        assert max(s["counts"][name] for s in after) - min(s["counts"][name] for s in after) <= 1
    assert {s["counts"]["steps"] for s in after} == {2}


def test_states_are_plain_and_their_own(tmp_path: Path) -> None:
    _, states = run(plain(tmp_path), 3, 2, **SMALL)
    before = copy.deepcopy(states)
    after = reshard(states, 2)
    file = io.BytesIO()
    torch.save(after, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == after
    after[0]["position"]["before"][0][0]["streams"][0]["pool"] = -1
    assert states == before and after[1]["position"]["before"] != after[0]["position"]["before"]


def test_releases_that_cannot_read_what_was_taken_over_are_told_by_the_version(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    _, states = run(dataset, 3, 2, **SMALL)
    taken_over = reshard(states, 2)
    assert {s["belongs"]["version"] for s in states} == {3} and {s["belongs"]["version"] for s in taken_over} == {4}
    _, states = run(dataset, 2, states=taken_over, reset=True, **SMALL)
    assert {s["belongs"]["version"] for s in states} == {3}


def test_states_that_are_not_those_of_all_ranks_at_one_step_are_refused(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    _, states = run(dataset, 3, 2, **SMALL)
    _, later = run(dataset, 3, 3, **SMALL)
    with pytest.raises(DataError, match=r"has 2 saved position\(s\) of the data, but number 0 is that of rank 0 of 3"):
        reshard(states[:2], 1)
    with pytest.raises(DataError, match="has 3 saved .* but number 0 is that of rank 1 of 3"):
        reshard([states[1], states[0], states[2]], 1)
    with pytest.raises(DataError, match="step of the epoch is 2 on rank 0, but 3 on rank 2"):
        reshard([*states[:2], later[2]], 1)
    _, others = run(dataset, 3, 2, **{**SMALL, "seed": 7})
    with pytest.raises(DataError, match="seed is 1 on rank 0, but 7 on rank 1"):
        reshard([states[0], others[1], states[2]], 2)
    one, other = (run(dataset, 3, 1, reshard(run(dataset, n, 1, **SMALL)[1], 3), **SMALL)[1] for n in (1, 2))
    with pytest.raises(DataError, match="ranks differ in which others they took over from"):
        reshard([*one[:2], other[2]], 1)
    with pytest.raises(DataError, match="version 9, but this release reads versions 3 and 4"):
        reshard([{**states[0], "belongs": {"version": 9}}], 2)


def test_what_was_taken_over_belongs_to_its_files_settings_and_ranks(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    taken_over = reshard(run(dataset, 2, 2, **SMALL)[1], 1)
    with pytest.raises(DataError, match="seed 1, but it is 2 now"):
        dataset.create_reader(None, reading(**SMALL, seed=2)).load_state_dict(taken_over[0])
    with pytest.raises(DataError, match="rank 0 of 1, but this is rank 1 of 3"):
        dataset.create_reader(None, reading(**SMALL), rank=1, world_size=3, any_rank=lambda flag: flag).load_state_dict(
            taken_over[0]
        )
    write(tmp_path / "d", [3], name="c.parquet")
    with pytest.raises(DataError, match=r"it had 2 file\(s\), and has"):
        ConceptParquetDataset(dataset.config).create_reader(None, reading(**SMALL)).load_state_dict(taken_over[0])


def test_the_log_tells_from_how_many_ranks_to_how_many_in_which_epoch_and_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = plain(tmp_path)
    _, states = run(dataset, 3, 2, at_epoch(5, dataset, 3, **SMALL), **SMALL)
    consumed = sum(state["counts"]["concepts"] for state in states)
    with caplog.at_level(logging.INFO, logger="fairseq2"):
        taken_over = reshard(states, 1)
        dataset.create_reader(None, reading(**SMALL)).load_state_dict(taken_over[0])
    assert "1 rank(s) take over from 3 in epoch 5, after" in caplog.text and f"{consumed} concepts" in caplog.text
    assert "resuming in epoch 5, which 3 rank(s) left to 1, at " in caplog.text and ".parquet, row group" in caplog.text
