"""Null vectors in lists of fixed size: read by every supported Arrow, in whole row groups and in parts, near and far."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data import null_vectors
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.discover import DataFile, discover
from lexalcm.data.null_vectors import may_be_null_vectors, read_rows
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig

KIND = pa.list_(pa.list_(pa.float16(), 3))
NUM_ROWS, ROWS_PER_GROUP = 12, 6


def documents() -> list[list[list[np.float16] | None] | None]:
    """Document i holds i + 1 vectors (i + 1, i + 2, i + 3); of document 4 the second is null, and document 9 is null."""
    made: list[list[list[np.float16] | None] | None] = [[[np.float16(i + 1 + k) for k in range(3)]] * (i + 1) for i in range(NUM_ROWS)]
    made[4][1] = None  # type: ignore[index]
    made[9] = None
    return made


@pytest.fixture(params=["local", "memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> DataFile:
    table = pa.table({EMBEDDING_COLUMN: pa.array(documents(), KIND), "id": [f"d{i}" for i in range(NUM_ROWS)]})
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=ROWS_PER_GROUP)
    if request.param == "local":
        return discover(str(tmp_path), EMBEDDING_COLUMN)[0]
    fsspec.filesystem("memory").pipe(f"{tmp_path}/part.parquet", (tmp_path / "part.parquet").read_bytes())
    return discover(f"memory://{tmp_path}", EMBEDDING_COLUMN)[0]


def schema() -> pa.Schema:
    return pa.schema([(EMBEDDING_COLUMN, KIND), ("id", pa.string())])


def test_rows_are_read_as_they_were_written(file: DataFile) -> None:
    table = read_rows(file, [EMBEDDING_COLUMN, "id"], 3, 11, schema())
    assert table is not None and table.schema.types == schema().types
    assert table[EMBEDDING_COLUMN].to_pylist() == documents()[3:11]
    assert table["id"].to_pylist() == [f"d{i}" for i in range(3, 11)]


def test_row_groups_and_their_parts_hold_them(file: DataFile) -> None:
    files = OpenFiles()
    whole = files.read_groups(file, [0, 1], [EMBEDDING_COLUMN])
    assert whole[EMBEDDING_COLUMN].to_pylist() == documents()
    for start, stop in ((0, 2), (2, 5), (5, 6)):
        part = files.read_part(file, 1, [EMBEDDING_COLUMN], start, stop, step=2)
        assert part[EMBEDDING_COLUMN].to_pylist() == documents()[6 + start : 6 + stop]


def test_what_nobody_can_read_is_damaged(file: DataFile) -> None:
    assert read_rows(file, ["no_such_column"], 0, 1, pa.schema([])) is None


@pytest.mark.parametrize(("reads_them", "told"), [(True, False), (False, True)])
def test_only_old_arrows_are_helped_out(monkeypatch: pytest.MonkeyPatch, reads_them: bool, told: bool) -> None:
    monkeypatch.setattr(null_vectors, "_ARROW_READS_THEM", reads_them)
    assert may_be_null_vectors(pa.ArrowInvalid("Expected all lists to be of size=3 but index 2 had size=0")) == told
    assert not may_be_null_vectors(pa.ArrowInvalid("Couldn't deserialize thrift"))


def test_a_dataset_skips_the_documents_that_hold_them(tmp_path: Path) -> None:
    table = pa.table({EMBEDDING_COLUMN: pa.array(documents(), KIND)})
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=ROWS_PER_GROUP)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path), on_bad_rows="skip"))
    assert [d.row for d in dataset.documents()] == [i for i in range(NUM_ROWS) if i not in (4, 9)]
