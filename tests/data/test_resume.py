"""A run that is killed anywhere goes on as if it had not been: with mixtures, on ranks, at an epoch's very end."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexalcm.data.batch import ConceptBatch
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.reader import ConceptReader
from lexalcm.data.sources import ConceptParquetConfig, SourceConfig
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import DataError
from tests.data.readers import LENGTHS, names, on_ranks, reading, record, saved, walk, write


def plain(folder: Path) -> ConceptParquetDataset:
    write(folder / "d", LENGTHS[:12], name="a.parquet")
    write(folder / "d", LENGTHS[12:], first=12, name="b.parquet")
    return ConceptParquetDataset(ConceptParquetConfig(path=str(folder / "d")))


def weighted(folder: Path) -> ConceptParquetDataset:
    sources = []
    for name, count, weight in (("few", 6, 2.0), ("many", 25, 1.0)):
        write(folder / name, [4, 20, 1, 7, 3] * (count // 5) + [4] * (count % 5))
        sources.append(SourceConfig(path=str(folder / name), weight=weight))
    return ConceptParquetDataset(ConceptParquetConfig(sources=sources))


@pytest.mark.parametrize("make", [plain, weighted])
@pytest.mark.parametrize(
    "fields",
    [{}, {"concepts_per_batch": None, "documents_per_batch": 4}, {"shuffle": False, "shuffle_window": 8}],
    ids=["concepts", "documents", "in order"],
)
def test_every_state_goes_on_with_the_same_steps(
    make: Callable[[Path], ConceptParquetDataset], fields: dict[str, Any], tmp_path: Path
) -> None:
    dataset = make(tmp_path)
    first = dataset.create_reader(None, reading(**fields))
    steps, states = record(first, 30)
    first.close()
    assert steps.count("end of epoch") >= 2
    for stop, some in enumerate(states[:-1]):
        for number, state in enumerate(some):
            # Neither how far ahead batches are made nor by how many threads shows in them.
            again = dataset.create_reader(None, reading(**{"prefetch": stop % 3, "num_workers": 1 + number, **fields}))
            again.load_state_dict(state)
            assert saved(again) == state
            assert walk(again, len(steps) - stop) == steps[stop:], (stop, number)
            again.close()


def test_a_reader_that_has_moved_on_can_be_put_back(tmp_path: Path) -> None:
    reader = plain(tmp_path).create_reader(None, reading())
    steps, states = record(reader, 12)
    for stop in (7, 0, 11):
        reader.load_state_dict(states[stop][0])
        assert walk(reader, 12 - stop) == steps[stop:]


def test_a_state_does_not_change_when_its_reader_goes_on(tmp_path: Path) -> None:
    reader = plain(tmp_path).create_reader(None, reading())
    next(reader)
    state = reader.state_dict()
    kept = json.loads(json.dumps(state))
    walk(reader, 12)
    assert state == kept


def resume(
    make: Callable[[int, Callable[[bool], bool]], ConceptReader],
    states: list[dict[str, Any]],
    count: int,
    rank: int,
    any_rank: Callable[[bool], bool],
) -> list[Any]:
    reader = make(rank, any_rank)
    reader.load_state_dict(states[rank])
    taken = walk(reader, count)
    reader.close()
    return taken


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_go_on_together_from_any_step(world_size: int, tmp_path: Path) -> None:
    dataset = plain(tmp_path)

    def make(rank: int, any_rank: Callable[[bool], bool]) -> ConceptReader:
        config = reading(max_seq_len=8, concepts_per_batch=8)
        return dataset.create_reader(
            None, config, rank=rank, world_size=world_size, num_accumulate=2, any_rank=any_rank
        )

    whole = on_ranks(world_size, lambda rank, any_rank: record(make(rank, any_rank), 20))
    ends = [[i for i, step in enumerate(steps) if step == "end of epoch"] for steps, _ in whole]
    assert ends[0] and all(places == ends[0] for places in ends)
    for stop in range(20):
        for number in range(len(whole[0][1][stop])):
            states = [by_rank[1][stop][number] for by_rank in whole]
            assert on_ranks(world_size, partial(resume, make, states, 20 - stop)) == [s[stop:] for s, _ in whole]


def test_batches_of_another_size_go_on_behind_what_was_consumed(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    reader = dataset.create_reader(None, reading())
    seen = names([batch for _ in range(3) for batch in next(reader)])
    other = dataset.create_reader(None, reading(concepts_per_batch=50))
    other.load_state_dict(saved(reader))
    seen += [name for step in other for name in names(step)]
    everything = [name for step in dataset.create_reader(None, reading()) for name in names(step)]
    assert sorted(seen) == sorted(everything) and len(set(seen)) == len(seen)


def test_other_files_are_named_on_both_sides(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    state = saved(dataset.create_reader(None, reading()))
    write(tmp_path / "d", [3], name="c.parquet")
    other = ConceptParquetDataset(dataset.config).create_reader(None, reading())
    with pytest.raises(DataError, match=r"it had 2 file\(s\), and has 3 now"):
        other.load_state_dict(state)


def test_a_file_of_another_content_is_another_file(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    state = saved(dataset.create_reader(None, reading()))
    write(tmp_path / "d", LENGTHS[12:-1], first=12, name="b.parquet")
    other = ConceptParquetDataset(dataset.config).create_reader(None, reading())
    with pytest.raises(DataError, match="not the one of the checkpoint"):
        other.load_state_dict(state)


def test_other_weights_are_refused_by_both_values(tmp_path: Path) -> None:
    dataset = weighted(tmp_path)
    state = saved(dataset.create_reader(None, reading()))
    dataset.config.sources[0].weight = 5.0
    other = ConceptParquetDataset(dataset.config).create_reader(None, reading())
    with pytest.raises(DataError, match=r"weight 2\).*weight 5\)"):
        other.load_state_dict(state)


def test_a_state_of_another_release_is_refused(tmp_path: Path) -> None:
    reader = plain(tmp_path).create_reader(None, reading())
    for state in ({}, {**saved(reader), "belongs": {"version": 1}}):
        with pytest.raises(DataError, match="Resume with the release that saved it"):
            reader.load_state_dict(state)


@pytest.mark.parametrize("make", [plain, weighted])
def test_a_reset_in_mid_epoch_begins_a_new_one_from_where_the_trainer_stood(
    make: Callable[[Path], ConceptParquetDataset], tmp_path: Path
) -> None:
    # The reader is several batches ahead of the trainer, which has seen two; the rest must not be lost to a mixture.
    dataset = make(tmp_path)
    with_prefetch = dataset.create_reader(None, reading(prefetch=4))
    without = dataset.create_reader(None, reading(prefetch=0))
    for reader in (with_prefetch, without):
        next(reader), next(reader)
        reader.reset()
        assert reader.state_dict()["counts"]["steps"] == 0  # type: ignore[index]
    assert walk(with_prefetch, 12) == walk(without, 12)


def spoilt(folder: Path) -> ConceptParquetDataset:
    """Every fourth document is bad, and the last eight: a pool of nothing else."""
    documents = [NewDocument(["s"] * 3, np.ones((3, 4), np.float32)) for _ in range(32)]
    for number, document in enumerate(documents):
        if number % 4 == 1 or number >= 24:
            document.concepts[1] = np.nan
    write_documents(folder / "part-0.parquet", documents, dtype="float32", concepts_per_row_group=12)
    return ConceptParquetDataset(ConceptParquetConfig(path=str(folder), on_bad_rows="skip"))


def weighted_and_spoilt(folder: Path) -> ConceptParquetDataset:
    for name in ("one", "two"):
        spoilt(folder / name)
    sources = [SourceConfig(path=str(folder / name), weight=1.0) for name in ("one", "two")]
    return ConceptParquetDataset(ConceptParquetConfig(sources=sources, on_bad_rows="skip"))


def skipped(steps: list[list[ConceptBatch]]) -> int:
    return sum(sum(batch.skipped.values()) for batches in steps for batch in batches)


@pytest.mark.parametrize("make", [spoilt, weighted_and_spoilt])
@pytest.mark.parametrize("shuffle", [True, False])
def test_bad_documents_are_counted_once_however_often_a_run_is_killed(
    tmp_path: Path, make: Callable[[Path], ConceptParquetDataset], shuffle: bool
) -> None:
    dataset = make(tmp_path)
    fields = {"concepts_per_batch": 6, "max_seq_len": 3, "shuffle_window": 20, "shuffle": shuffle}

    def steps_of(reader: ConceptReader, count: int) -> list[list[ConceptBatch]]:
        return [batches for batches, _ in zip(reader, range(count))]

    whole = steps_of(dataset.create_reader(None, reading(**fields)), 100)
    assert skipped(whole) > 0
    for killed_after in range(1, len(whole)):
        first, second = (dataset.create_reader(None, reading(**fields)) for _ in range(2))
        before = [next(first) for _ in range(killed_after)]
        second.load_state_dict(saved(first))
        assert skipped(before) == skipped(whole[:killed_after])
        assert skipped(before) + skipped(steps_of(second, 100)) == skipped(whole)
        first.close()
        second.close()


@pytest.mark.parametrize("make", [plain, weighted])
def test_the_log_of_a_resumed_run_says_where_that_of_the_run_before_has_ended(
    make: Callable[[Path], ConceptParquetDataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make(tmp_path)
    reader = dataset.create_reader(None, reading(prefetch=4, concepts_per_batch=8, max_seq_len=8, shuffle_window=16))
    with caplog.at_level("INFO", logger="fairseq2"):
        for _ in range(4):
            next(reader)
            caplog.clear()
            state = saved(reader)
            (before,) = [r.getMessage() for r in caplog.records if "Data - saved" in r.getMessage()]
            again = dataset.create_reader(None, reading(concepts_per_batch=8, max_seq_len=8, shuffle_window=16))
            again.load_state_dict(state)
            (after,) = [r.getMessage() for r in caplog.records if "Data - resuming" in r.getMessage()]
            assert after.partition("resuming")[2] == before.partition("saved")[2]
            assert "row group" in after and f"{state['counts']['documents']:,} documents" in after
            again.close()
    reader.close()
