"""Files of odd shapes: very many row groups, one enormous one, more files than there were."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.discover import DataWarning
from lexalcm.data.order import group_into_pools, split_into_units
from lexalcm.data.sources import EMBEDDING_COLUMN
from lexalcm.errors import DataError
from tests.data.footers import repeat_pages
from tests.data.numbered import fixed, nested, open_dataset, stands_right, texts, write_table
from tests.data.readers import epoch, names, reading, write


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_row_group_of_two_million_concepts_is_planned_in_parts(world_size: int) -> None:
    components = 2_200_000 * 1024
    units = split_into_units([((110_000,), (components,))], world_size, pool_components=100_000 * 1024)
    pools = group_into_pools(units, components=100_000 * 1024)
    assert all(sum(unit.components for unit in pool) < 2**31 for pool in pools)
    edges = [(unit.start, unit.stop) for pool in pools for unit in pool]
    assert len(edges) >= 22 and edges[0][0] == 0 and edges[-1][1] == 110_000
    assert all(a[1] == b[0] for a, b in zip(edges, edges[1:]))


def test_files_that_come_while_an_epoch_is_read_do_not_change_it(tmp_path: Path) -> None:
    write(tmp_path, [3] * 20)
    dataset = open_dataset(tmp_path)
    reader = dataset.create_reader(None, reading())
    first = next(reader)
    write(tmp_path, [2] * 20, first=20, name="part-1.parquet")
    rest = epoch(reader)
    seen = [name.split(":")[1] for batches in [first, *rest] for name in names(batches)]
    assert seen == ["part-0.parquet"] * 20
    state = reader.state_dict()
    reader.close()
    with pytest.raises(DataError, match=r"it had 1 file\(s\), and has 2 now"):
        open_dataset(tmp_path).create_reader(None, reading()).load_state_dict(state)


@pytest.mark.long
def test_twenty_thousand_row_groups_open_with_a_warning_and_are_read(tmp_path: Path) -> None:
    count = 100_000
    write_table(tmp_path, pa.array(nested([1] * count), fixed(pa.float32())), text=[["s"]] * count, per_group=5)
    with pytest.warns(DataWarning, match="20,000 row groups of about 5 rows"):
        dataset = open_dataset(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        rows = [d.row for d in dataset.documents() if stands_right(d)]
    assert rows == list(range(count))


def peak_of_reading(folder: Path, shuffle_window: int) -> tuple[int, list[int]]:
    """Concepts of an epoch, and kilobytes: the most before reading, and the most in each tenth of it."""
    code = f"""
import os
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
dataset = ConceptParquetDataset(ConceptParquetConfig(path={str(folder)!r}))
reading = ReadingConfig(shuffle_window={shuffle_window}, concepts_per_batch=4096)
reader = dataset.create_reader(None, reading)
sizes, concepts = [resident()], 0
for (batch,) in reader:
    concepts += batch.layout.num_concepts
    sizes.append(resident())
step = max(1, len(sizes) // 10)
print(concepts, sizes[0], *(max(sizes[i : i + step]) for i in range(1, len(sizes), step)))
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell a process's memory by /proc")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    concepts, *sizes = map(int, done.stdout.split())
    return concepts, sizes


def write_equal_vectors(path: Path, count: int, width: int, *, times: int = 1) -> None:
    """One row group of documents of 20 equal vectors each: a few kilobytes, whatever they unfold to.

    :param times: Write a part of them, and repeat it.
    """
    part = count // times
    flat = pa.array(np.ones(part * width, np.float16))
    offsets = pa.array(np.arange(0, part + 1, 20), pa.int32())
    column = pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, width))
    pq.write_table(pa.table({EMBEDDING_COLUMN: column}), path, row_group_size=part, compression="none")
    repeat_pages(path, times)


def test_a_small_file_that_unfolds_to_much_is_read_in_parts(tmp_path: Path) -> None:
    write_equal_vectors(tmp_path / "p.parquet", 250_000, 256)
    assert (tmp_path / "p.parquet").stat().st_size < 2_000_000
    concepts, (before, *sizes) = peak_of_reading(tmp_path, 10_000)
    assert concepts == 250_000
    assert max(sizes) < before + 300_000, "read at one go it takes twice that"


@pytest.mark.long
def test_a_row_group_of_two_million_concepts_is_read_in_bounded_memory(tmp_path: Path) -> None:
    write_equal_vectors(tmp_path / "p.parquet", 2_200_000, 1024, times=110)
    assert pq.read_metadata(tmp_path / "p.parquet").num_row_groups == 1
    concepts, (before, *sizes) = peak_of_reading(tmp_path, 50_000)
    assert concepts == 2_200_000
    assert max(sizes) < before + 1_500_000, "kilobytes"


@pytest.mark.long
def test_memory_is_flat_over_an_epoch_of_a_large_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = [20] * 500
    with pq.ParquetWriter(tmp_path / "p.parquet", pa.schema([(EMBEDDING_COLUMN, fixed_half(512))])) as writer:
        for _ in range(40):
            values = pa.array(rng.standard_normal(10_000 * 512).astype(np.float16))
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            column = pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, 512))
            writer.write_table(pa.table({EMBEDDING_COLUMN: column}))
    assert (tmp_path / "p.parquet").stat().st_size > 300e6
    concepts, (_, first, *others) = peak_of_reading(tmp_path, 20_000)
    assert concepts == 400_000
    assert max(others) < 1.2 * first


def fixed_half(width: int) -> pa.DataType:
    return pa.list_(pa.list_(pa.float16(), width))


def test_documents_of_no_and_few_concepts_never_give_an_empty_batch(tmp_path: Path) -> None:
    lengths = [0, 1, 2, 3] * 5
    write_table(tmp_path, pa.array(nested(lengths), fixed(pa.float32())), text=texts(lengths))
    for least, kept in ((0, 15), (1, 15), (2, 10), (3, 5)):
        reader = open_dataset(tmp_path).create_reader(None, reading(min_document_len=least, min_context_len=0))
        batches = [batch for (batch,) in reader]
        assert sum(len(batch.layout.lengths) for batch in batches) == kept
        assert all(batch.num_targets > 0 for batch in batches)
        assert sum(reader.left_out.values()) == 20 - kept and reader.left_out["empty"] == 5
        reader.close()
