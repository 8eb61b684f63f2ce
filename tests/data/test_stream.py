"""Windows of a source: whatever a file stores and however it is read, the same concepts in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig
from tests.data.numbered import fixed, nested, open_dataset, texts, write_table
from tests.data.readers import LENGTHS, contents, epoch, names, on_ranks, reading, write


@pytest.fixture
def dataset(tmp_path: Path) -> ConceptParquetDataset:
    write(tmp_path / "d", LENGTHS[:12], name="a.parquet")
    write(tmp_path / "d", LENGTHS[12:], first=12, name="b.parquet")
    return ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path / "d")))


def order(dataset: ConceptParquetDataset, **fields: Any) -> list[list[str]]:
    reader = dataset.create_reader(None, reading(**fields))
    found = [[name for step in epoch(reader) for name in names(step)] for _ in range(2)]
    reader.close()
    return found


def test_the_order_is_that_of_the_seed_however_many_threads_and_batches_ahead(dataset: ConceptParquetDataset) -> None:
    expected = order(dataset)
    for prefetch in (0, 1, 7):
        for num_workers in (1, 2, 5):
            assert order(dataset, prefetch=prefetch, num_workers=num_workers) == expected
    assert order(dataset, seed=2) != expected


def test_the_size_of_batches_does_not_change_which_documents_come_together(dataset: ConceptParquetDataset) -> None:
    assert [set(found) for found in order(dataset, concepts_per_batch=16)] == [set(f) for f in order(dataset)]
    one_by_one = order(dataset, concepts_per_batch=None, documents_per_batch=1)
    for step in dataset.create_reader(None, reading(concepts_per_batch=None, documents_per_batch=3)):
        size = len(names(step))
        assert sorted(one_by_one[0][:size]) == sorted(names(step))
        del one_by_one[0][:size]
    assert one_by_one[0] == []


def test_documents_per_batch_is_met_but_by_the_last_batch(dataset: ConceptParquetDataset) -> None:
    reader = dataset.create_reader(None, reading(concepts_per_batch=None, documents_per_batch=4))
    sizes = [batch.layout.num_documents for (batch,) in epoch(reader)]
    assert set(sizes[:-1]) == {4} and 1 <= sizes[-1] <= 4


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_of_several_types_give_one_type(pack: bool, dtype: str, tmp_path: Path) -> None:
    lengths = [3, 2, 4, 1, 5, 2]
    leaves = (pa.float16(), pa.float32(), pa.float64())
    kinds = [fixed(leaf) for leaf in leaves] + [pa.list_(pa.list_(leaf)) for leaf in leaves]
    for number, kind in enumerate(kinds):
        write_table(tmp_path / str(number), pa.array(nested(lengths), kind), text=texts(lengths))
    reader = open_dataset(tmp_path).create_reader(None, reading(pack=pack, dtype=dtype))
    seen = []
    for (batch,) in epoch(reader):
        assert str(batch.concepts.dtype) == f"torch.{dtype}"
        assert batch.ids is not None
        found = batch.concepts[batch.layout.real]
        documents = np.repeat(batch.ids.row, batch.layout.lengths) + 1
        assert (found[:, 0].numpy() == documents).all()
        seen += [(int(d), int(s)) for d, s in found[:, :2].tolist()]
    assert sorted(seen) == sorted((d + 1, s + 1) for d, n in enumerate(lengths) for s in range(n) for _ in kinds)


def test_padded_batches_hold_what_packed_ones_do(dataset: ConceptParquetDataset) -> None:
    packed, padded = (epoch(dataset.create_reader(None, reading(pack=pack))) for pack in (True, False))
    assert len(packed) == len(padded)
    for (one,), (other,) in zip(packed, padded):
        assert names([one]) == names([other]) and one.layout.lengths == other.layout.lengths
        assert one.num_targets == other.num_targets and one.num_step_targets == other.num_step_targets
        real = other.layout.real
        assert other.concepts.shape == (len(one.layout.lengths), max(one.layout.lengths), 4)
        assert one.concepts.equal(other.concepts[real]) and one.target_mask.equal(other.target_mask[real])
        assert not other.concepts[~real].any() and not other.target_mask[~real].any()


def test_a_document_is_cut_into_windows_that_follow_each_other(tmp_path: Path) -> None:
    write(tmp_path, [37, 16, 17, 1])
    reader = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path))).create_reader(None, reading(shuffle=False))
    windows = []
    for (batch,) in epoch(reader):
        assert batch.ids is not None
        windows += list(zip(batch.ids.row.tolist(), batch.ids.window.tolist(), batch.layout.lengths))
    assert windows == [(0, 0, 16), (0, 1, 16), (0, 2, 5), (1, 0, 16), (2, 0, 16), (2, 1, 1), (3, 0, 1)]


def test_one_long_document_among_short_ones_costs_them_nothing(tmp_path: Path) -> None:
    write(tmp_path, [*[5] * 20, 2000, *[5] * 20], per_group=200)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    reader = dataset.create_reader(None, reading(max_seq_len=128, concepts_per_batch=128, shuffle_window=3000))
    batches = [batch for step in epoch(reader) for batch in step]
    assert all(batch.layout.num_concepts <= 128 for batch in batches)
    assert sum(batch.layout.num_concepts for batch in batches) == 2200
    # No batch falls short by more than the longest window that might not fit any more.
    assert len(batches) <= 2 * 2200 // 128 + 1
    assert sorted(c for batch in batches for c in contents(batch) if c[0] == 20) == [(20, s) for s in range(2000)]


def test_empty_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    lengths = [0, 3, 0, 0, 2, 0]
    write_table(tmp_path, pa.array(nested(lengths), fixed(pa.float32())), text=texts(lengths))
    reader = open_dataset(tmp_path).create_reader(None, reading())
    assert sorted(c for step in epoch(reader) for batch in step for c in contents(batch)) == [
        (d, s) for d in (1, 4) for s in range(lengths[d])
    ]
    assert reader.left_out == {"empty": 4}


def test_length_limits_are_inclusive_and_told_apart(tmp_path: Path) -> None:
    write(tmp_path, [1, 2, 3, 8, 9, 30])
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))
    reader = dataset.create_reader(None, reading(min_document_len=2, max_document_len=8))
    kept = {int(name.split(":")[-2]) for step in epoch(reader) for name in names(step)}
    assert kept == {1, 2, 3}
    assert reader.left_out == {"shorter than min_document_len": 1, "longer than max_document_len": 2}


def test_more_ranks_than_documents_still_end_together(tmp_path: Path) -> None:
    write(tmp_path, [3, 4])
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path)))

    def run(rank: int, any_rank: Any) -> list[Any]:
        return epoch(dataset.create_reader(None, reading(), rank=rank, world_size=4, any_rank=any_rank))

    found = on_ranks(4, run)
    assert {len(steps) for steps in found} == {1}
    assert sorted(b.num_targets for ((b,),) in found) == [0, 0, 3, 4]
    assert sorted(b.num_step_targets for ((b,),) in found) == [0, 0, 3, 4]
