"""The training reader: every document once an epoch, in an order that a resumed run continues exactly.

Vectors tell where they stand: component 0 is the document, component 1 the sentence, so that a vector under another id
shows.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.reader import ConceptReader
from lexalcm.data.sources import ConceptParquetConfig, SourceConfig
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import DataError
from tests.data.readers import LENGTHS, contents, epoch, names, on_ranks, reading, walk, write


@pytest.fixture
def dataset(tmp_path: Path) -> ConceptParquetDataset:
    write(tmp_path / "d", LENGTHS[:12], name="a.parquet")
    write(tmp_path / "d", LENGTHS[12:], first=12, name="b.parquet")
    return ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path / "d")))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"shuffle": False},
        {"prefetch": 0},
        {"concepts_per_batch": None, "documents_per_batch": 4},
        {"shuffle_window": 1},
        {"num_workers": 3, "shuffle_window": 1000},
    ],
)
def test_an_epoch_has_every_concept_once_under_its_own_id(dataset: ConceptParquetDataset, fields: dict) -> None:
    reader = dataset.create_reader(None, reading(**fields))
    for _ in range(2):
        seen: list[tuple[int, int]] = []
        for (batch,) in epoch(reader):
            found = contents(batch)
            seen += found
            position = 0
            assert batch.ids is not None
            for length, file, row, window in zip(batch.layout.lengths, batch.ids.file, batch.ids.row, batch.ids.window):
                document = int(row) + (12 if "b.parquet" in batch.ids.files[file] else 0)
                expected = [(document, int(window) * 16 + i) for i in range(length)]
                assert found[position : position + length] == expected
                position += length
        assert sorted(seen) == [(d, s) for d, n in enumerate(LENGTHS) for s in range(n)]
    reader.close()


def test_batches_are_bounded_in_concepts_whatever_the_longest_document(tmp_path: Path) -> None:
    write(tmp_path, [2000, *[5] * 40])
    reader = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path))).create_reader(None, reading())
    sizes = [batch.layout.num_concepts for (batch,) in epoch(reader)]
    assert max(sizes) <= 24 and np.median(sizes) >= 15


def test_epochs_differ_in_order_and_an_unshuffled_one_is_that_of_the_files(dataset: ConceptParquetDataset) -> None:
    reader = dataset.create_reader(None, reading())
    first, second = ([n for step in epoch(reader) for n in names(step)] for _ in range(2))
    assert sorted(first) == sorted(second) and first != second
    plain = dataset.create_reader(None, reading(shuffle=False, max_seq_len=24))
    rows = [n.rsplit(":", 1)[0] for step in epoch(plain) for n in names(step)]
    in_order = [f"d:a.parquet:{i}" for i in range(12)] + [f"d:b.parquet:{i}" for i in range(11)]
    assert list(dict.fromkeys(rows)) == in_order


@pytest.mark.parametrize("fields", [{}, {"prefetch": 0}, {"num_accumulate": 2}])
def test_a_run_killed_anywhere_goes_on_with_the_same_batches(dataset: ConceptParquetDataset, fields: dict) -> None:
    accumulate = fields.pop("num_accumulate", 1)

    def make() -> ConceptReader:
        return dataset.create_reader(None, reading(**fields), num_accumulate=accumulate)

    whole = walk(make(), 40)
    assert whole.count("end of epoch") >= 2
    for stop in range(40):
        reader = make()
        walk(reader, stop)
        state = copy.deepcopy(reader.state_dict())
        again = make()
        again.load_state_dict(state)
        assert again.state_dict() == state
        middle = min(stop + 2, 40)
        assert walk(again, middle - stop) == whole[stop:middle]
        last = make()
        last.load_state_dict(copy.deepcopy(again.state_dict()))
        assert walk(last, 40 - middle) == whole[middle:]


def epochs_of_ranks(
    dataset: ConceptParquetDataset, world_size: int, fields: dict, epochs: int
) -> list[list[list[Any]]]:
    """Runs one reader a thread; steps by epoch by rank."""

    def run(rank: int, any_rank: Callable[[bool], bool]) -> list[list[Any]]:
        reader = dataset.create_reader(
            None, reading(**fields), rank=rank, world_size=world_size, num_accumulate=2, any_rank=any_rank
        )
        found = [epoch(reader) for _ in range(epochs)]
        reader.close()
        return found

    return on_ranks(world_size, run)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_an_epoch_without_loss_and_end_it_together(dataset: ConceptParquetDataset, world_size: int) -> None:
    expected = sorted(n for step in epoch(dataset.create_reader(None, reading(max_seq_len=8))) for n in names(step))
    by_rank = epochs_of_ranks(dataset, world_size, {"max_seq_len": 8}, epochs=2)
    for number in range(2):
        steps_by_rank = [found[number] for found in by_rank]
        assert len({len(steps) for steps in steps_by_rank}) == 1
        assert sorted(n for steps in steps_by_rank for step in steps for n in names(step)) == expected
        for steps in steps_by_rank:
            for step in steps:
                assert world_size == 1 or len(step) == 2
                for batch in step:
                    assert batch.num_step_targets == sum(b.num_targets for b in step)
                    assert batch.num_step_batches == len(step)
                    assert batch.ids is not None or (batch.num_targets == 0 and not batch.target_mask.any())


@pytest.mark.parametrize("pack", [True, False])
def test_affixes_stand_at_the_ends_of_documents_alone(tmp_path: Path, pack: bool) -> None:
    write(tmp_path / "d", [3, 40, 1])
    special = tmp_path / "special.safetensors"
    save_file({"start": np.full(4, -1, np.float32), "end": np.full(4, -2, np.float32)}, special)
    config = reading(special_concepts=str(special), prefix="start", suffix="end", shuffle=False, pack=pack)
    reader = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path / "d"))).create_reader(None, config)
    rows, targets = [], []
    for (batch,) in epoch(reader):
        real = batch.layout.real
        concepts, mask = batch.concepts[real][:, 0].tolist(), batch.target_mask[real].tolist()
        start = 0
        for length in batch.layout.lengths:
            rows.append([int(v) for v in concepts[start : start + length]])
            targets += mask[start : start + length]
            start += length
        assert batch.num_targets == int(batch.target_mask.sum())
    assert rows == [[-1, 1, 1, 1, -2], [-1, *[2] * 16], [2] * 16, [*[2] * 8, -2], [-1, 3, -2]]
    assert targets.count(False) == 3  # a prefix is context, not a target


def test_documents_outside_the_length_limits_are_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path, [1, 2, 9, 30, 4])
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    reader = dataset.create_reader(None, reading(min_document_len=2, max_document_len=20))
    assert sum(b.layout.num_concepts for (b,) in epoch(reader)) == 15
    assert sorted(reader.left_out.values()) == [1, 1]


def test_held_out_rows_never_come(tmp_path: Path) -> None:
    write(tmp_path, [3] * 10)
    reader = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path))).create_reader(
        None, reading(hold_out_every=4)
    )
    rows = {int(n.split(":")[-2]) for step in epoch(reader) for n in names(step)}
    assert rows == {1, 2, 3, 5, 6, 7, 9}


def mixture(tmp_path: Path) -> ConceptParquetDataset:
    sources = []
    for name, count, weight in (("few", 6, 3.0), ("many", 60, 1.0)):
        write(tmp_path / name, [4] * count)
        sources.append(SourceConfig(path=str(tmp_path / name), weight=weight))
    return ConceptParquetDataset(ConceptParquetConfig(sources=sources))


def test_a_weighted_epoch_ends_with_its_first_exhausted_source_and_the_other_carries_over(tmp_path: Path) -> None:
    reader = mixture(tmp_path).create_reader(None, reading())
    epochs = [[n for step in epoch(reader) for n in names(step)] for _ in range(12)]
    few = [[n for n in found if n.startswith("few")] for found in epochs]
    many = [n for found in epochs for n in found if n.startswith("many")]
    assert all(len(set(found)) == 6 for found in few[:3])
    assert len(set(many[:60])) == min(60, len(many))  # no document of the larger source comes twice before all came
    assert 0.6 < sum(map(len, few)) / sum(map(len, epochs)) < 0.9


def test_a_mixture_resumes_exactly(tmp_path: Path) -> None:
    dataset = mixture(tmp_path)
    whole = dataset.create_reader(None, reading())
    first = [names(next(whole)) for _ in range(2)]
    state = copy.deepcopy(whole.state_dict())
    rest = [names(step) for step in epoch(whole)]
    again = dataset.create_reader(None, reading())
    again.load_state_dict(state)
    assert first and [names(step) for step in epoch(again)] == rest


def test_another_world_or_other_files_are_refused(dataset: ConceptParquetDataset, tmp_path: Path) -> None:
    reader = dataset.create_reader(None, reading())
    next(reader)
    state = reader.state_dict()
    with pytest.raises(DataError, match=r"rank 0 of 1, but this is rank 1 of 2"):
        dataset.create_reader(None, reading(), rank=1, world_size=2, any_rank=lambda flag: flag).load_state_dict(state)
    write(tmp_path / "d", [3], name="c.parquet")
    other = ConceptParquetDataset(dataset.config).create_reader(None, reading())
    with pytest.raises(DataError, match="files"):
        other.load_state_dict(state)


def test_a_bad_row_found_in_the_background_reaches_the_caller(tmp_path: Path) -> None:
    good = NewDocument(["s"] * 3, np.ones((3, 4), np.float32))
    bad = NewDocument(["s"] * 2, np.full((2, 4), np.nan, np.float32))
    write_documents(tmp_path / "p.parquet", [good, good, bad, good], dtype="float32")
    config = ConceptParquetConfig(path=str(tmp_path))
    with pytest.raises(DataError, match=r"row group 0, row 2: NaN or infinity"):
        epoch(ConceptParquetDataset(config).create_reader(None, reading()))
    config.on_bad_rows = "skip"
    reader = ConceptParquetDataset(config).create_reader(None, reading())
    batches = [b for (b,) in epoch(reader)]
    assert sum(b.layout.num_documents for b in batches) == 3
    assert dict(reader.bad_rows.by_reason) == {"NaN or infinity": 1}
    assert [dict(b.skipped) for b in batches if b.skipped] == [{"not_finite": 1}]


def test_the_model_and_the_dataset_must_agree_on_the_width(dataset: ConceptParquetDataset) -> None:
    with pytest.raises(DataError, match=r"4 dimensions.*`concept_dim` is 1024"):
        dataset.create_reader(None, reading(), concept_dim=1024)


def test_the_order_does_not_depend_on_pythons_hash_seed(dataset: ConceptParquetDataset) -> None:
    code = f"""
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig
config = ConceptParquetConfig(path={dataset.config.path!r})
reader = ConceptParquetDataset(config).create_reader(None, ReadingConfig(concepts_per_batch=24, max_seq_len=16))
print([name for (batch,) in reader for name in batch.ids.names()])
"""
    runs = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, (done.returncode, done.stderr)
        runs.add(done.stdout)
    assert len(runs) == 1 and "a.parquet" in runs.pop()


def test_an_epoch_without_a_document_is_an_error_and_no_endless_loop(dataset: ConceptParquetDataset) -> None:
    reader = dataset.create_reader(None, reading(min_document_len=100))
    with pytest.raises(DataError, match=r"no document to train on \(shorter than min_document_len: 23\)"):
        next(reader)


def test_other_settings_of_the_order_are_refused_by_name(dataset: ConceptParquetDataset) -> None:
    reader = dataset.create_reader(None, reading())
    next(reader)
    with pytest.raises(DataError, match="max_seq_len 16, but it is 8 now"):
        dataset.create_reader(None, reading(max_seq_len=8)).load_state_dict(reader.state_dict())
    larger = dataset.create_reader(None, reading(concepts_per_batch=48, prefetch=1, num_workers=2))
    larger.load_state_dict(reader.state_dict())  # how batches are cut and made may change


def test_memory_does_not_grow_over_an_epoch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = (NewDocument(["s"] * 20, rng.normal(size=(20, 256)).astype(np.float32)) for _ in range(4000))
    write_documents(tmp_path / "p.parquet", documents, dtype="float32", concepts_per_row_group=2000)
    code = f"""
import os
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
reader = ConceptParquetDataset(ConceptParquetConfig(path={str(tmp_path)!r})).create_reader(
    None, ReadingConfig(concepts_per_batch=1000, shuffle_window=4000)
)
sizes = [resident() for batches in reader for _ in [len(batches)]]
print(max(sizes[:16]), max(sizes))
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell a process's memory by /proc")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, all_of_it = map(int, done.stdout.split())
    assert all_of_it < first + 30e6  # the file has 80 MB


def test_a_step_that_fails_halfway_is_not_counted_as_read(tmp_path: Path) -> None:
    good, bad = np.ones((3, 4), np.float32), np.full((3, 4), np.nan, np.float32)
    for name, concepts in (("a", good), ("b", bad)):
        write_documents(tmp_path / f"{name}.parquet", [NewDocument(["s"] * 3, concepts)], dtype="float32")
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    config = reading(shuffle=False, shuffle_window=1, concepts_per_batch=None, documents_per_batch=1, prefetch=0)
    reader = dataset.create_reader(None, config, num_accumulate=2)
    before = copy.deepcopy(reader.state_dict())
    for _ in range(2):
        with pytest.raises(DataError, match=r"b\.parquet"):
            next(reader)
    assert reader.state_dict() == before


@pytest.mark.parametrize("prefetch", [0, 4])
def test_an_error_is_no_end_of_an_epoch(tmp_path: Path, prefetch: int) -> None:
    write(tmp_path, [3] * 10)
    bad = NewDocument(["s"] * 2, np.full((2, 4), np.nan, np.float32))
    write_documents(tmp_path / "z.parquet", [bad], dtype="float32")
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    config = reading(shuffle=False, shuffle_window=4, concepts_per_batch=16, prefetch=prefetch)
    reader = dataset.create_reader(None, config)
    assert next(reader)
    for _ in range(3):
        with pytest.raises(DataError, match=r"z\.parquet"):
            while True:
                next(reader)
