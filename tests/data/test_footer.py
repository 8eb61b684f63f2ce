"""What footers count, and footers and page headers that lie."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.discover import discover
from lexalcm.data.footer import footer_of, values_by_row_group
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.errors import DataError
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.run import verify
from tests.data import footers
from tests.data.footers import change_footer, change_page, chunk, row_group
from tests.data.numbered import LENGTHS, fixed, nested, open_dataset, texts, write_table
from tests.data.readers import reading


def counted(path: Path, *, most: int = 1000) -> list[list[int | None]]:
    with path.open("rb") as handle:
        return values_by_row_group(footer_of(handle, path.stat().st_size), most=most)


@pytest.mark.parametrize("options", [{}, {"compression": "none", "write_statistics": False}, {"version": "1.0"}])
@pytest.mark.parametrize("per_group", [1, 4, 6])
def test_values_are_those_that_arrow_tells_of_a_sound_file(per_group: int, options: dict, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array(range(6)),
            "other": pa.array([{"a": [True], "b": {"c": 1.5}}] * 5 + [None]),
            "map": pa.array([[("k", [1, 2])]] * 6, pa.map_(pa.string(), pa.list_(pa.int8()))),
            EMBEDDING_COLUMN: pa.array(nested(), fixed(pa.float32())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=per_group, **options)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    told = [[g.column(c).num_values for c in range(g.num_columns)] for g in groups]
    assert counted(tmp_path / "a.parquet") == told
    assert counted(tmp_path / "a.parquet", most=1) == told[:1]


@pytest.mark.parametrize("footer", [b"", b"\x49", b"\x49\x1c", b"\xff" * 40, b"\x19" + b"\x1c" * 60, b"\x1f\x00"])
def test_bytes_that_are_no_footer_are_refused(footer: bytes) -> None:
    with pytest.raises(ValueError, match="footer"):
        values_by_row_group(footer, most=10)


def test_runs_of_equal_vectors_are_counted_by_what_they_unfold_to(tmp_path: Path) -> None:
    same = pa.array([[[1.0] * 64] * 50] * 40, pa.list_(pa.list_(pa.float16(), 64)))
    write_table(tmp_path, same, text=[["s"] * 50] * 40, per_group=20)
    (file,) = discover(str(tmp_path), EMBEDDING_COLUMN)
    assert file.size < 20 * 50 * 64
    assert all(count >= 20 * 50 * 64 for count in file.components)


def test_row_groups_that_are_not_counted_are_taken_to_be_like_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lexalcm.data.discover._MOST_CHUNKS", 2)
    same = pa.array([[[1.0] * 64] * 50] * 40, pa.list_(pa.list_(pa.float16(), 64)))
    write_table(tmp_path, same, text=[["s"] * 50] * 40, per_group=20)
    (file,) = discover(str(tmp_path), EMBEDDING_COLUMN)
    assert file.values[1:] == (None,) and file.components[1] >= 20 * 50 * 64
    assert len(list(open_dataset(tmp_path).documents())) == 40


Tree = dict[int, Any]


def with_rows(rows: int, *, values: bool = False) -> Callable[[Tree], None]:
    """The first row group says that it has so many rows, and the file too."""

    def change(tree: Tree) -> None:
        group = row_group(tree, 0)
        tree[footers.NUM_ROWS] = (6, tree[footers.NUM_ROWS][1] + rows - group[footers.GROUP_ROWS][1])
        group[footers.GROUP_ROWS] = (6, rows)
        for column in range(2 if values else 0):
            chunk(tree, 0, column)[footers.NUM_VALUES] = (6, rows)

    return change


def with_field(field: int, value: int) -> Callable[[Tree], None]:
    """The embeddings of the first row group have another field."""
    return lambda tree: chunk(tree, 0, 1).__setitem__(field, (6, value))


LIES: dict[str, Callable[[Tree], None]] = {
    "rows in all": lambda tree: tree.__setitem__(footers.NUM_ROWS, (6, 7)),
    "fewer rows": with_rows(1),
    "more rows": with_rows(3),
    "no rows": with_rows(0),
    "2^31 rows": with_rows(2**31),
    "2^40 rows": with_rows(2**40),
    "2^31 rows and values": with_rows(2**31, values=True),
    "100,000 rows and values": with_rows(100_000, values=True),
    "no values": with_field(footers.NUM_VALUES, 0),
    "one value": with_field(footers.NUM_VALUES, 1),
    "2^62 values": with_field(footers.NUM_VALUES, 2**62),
    "less than no values": with_field(footers.NUM_VALUES, -1),
    "no bytes": with_field(footers.COMPRESSED, 0),
    "2^40 bytes": with_field(footers.COMPRESSED, 2**40),
    "pages at the start": with_field(footers.DATA_PAGE, 0),
    "pages before the start": with_field(footers.DATA_PAGE, -1),
    "a row group fewer": lambda tree: tree[footers.ROW_GROUPS][1].pop(),
    "a column fewer": lambda tree: row_group(tree, 0)[footers.COLUMNS][1].pop(),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_footer_that_lies_is_refused_by_reader_and_verify(lie: str, tmp_path: Path) -> None:
    write_table(tmp_path, pa.array(nested(), fixed(pa.float32())), per_group=2)
    change_footer(tmp_path / "part-0.parquet", LIES[lie])
    with pytest.raises(DataError, match=r"part-0\.parquet") as caught:
        list(open_dataset(tmp_path, text_column="text_sentences", on_bad_rows="skip").documents())
    assert len(str(caught.value).splitlines()) <= 3
    assert verify(VerifyConfig(data=ConceptParquetConfig(path=str(tmp_path)))).findings.count("error")


def test_a_column_with_one_value_a_row_tells_of_rows_that_are_missing(tmp_path: Path) -> None:
    write_table(tmp_path, pa.array(nested(), fixed(pa.float32())), per_group=2, title=["t"] * len(LENGTHS))
    change_footer(tmp_path / "part-0.parquet", with_rows(1))
    with pytest.raises(DataError, match="contradicts itself: row group 0 has 1 rows, but 2 values"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("lie", [with_rows(39), with_field(footers.NUM_VALUES, 2**40)])
def test_rows_read_in_parts_are_counted_too(lie: Callable[[Tree], None], tmp_path: Path) -> None:
    lengths = [3] * 40
    folder = write_table(tmp_path, pa.array(nested(lengths), fixed(pa.float32())), text=texts(lengths), per_group=40)
    change_footer(folder / "part-0.parquet", lie)
    dataset = open_dataset(folder)
    reader = dataset.create_reader(None, reading(shuffle_window=16, concepts_per_batch=16))
    with pytest.raises(DataError, match=r"part-0\.parquet: row group 0 .* values, but the footer says"):
        list(reader)
    reader.close()


def test_statistics_that_lie_change_nothing(tmp_path: Path) -> None:
    write_table(tmp_path, pa.array(nested(), fixed(pa.float32())), id=[str(i) for i in range(6)], per_group=2)

    def lie(tree: Tree) -> None:
        for field, (kind, _) in chunk(tree, 0, 0)[footers.STATISTICS][1].items():
            if kind == footers.BINARY:
                chunk(tree, 0, 0)[footers.STATISTICS][1][field] = (kind, b"\xff")

    change_footer(tmp_path / "part-0.parquet", lie)
    assert len(list(open_dataset(tmp_path, id_column="id").documents())) == 6


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("value", [2**31 - 1, 1, -1])
def test_a_page_that_lies_about_its_values_is_refused(value: int, version: str, codec: str, tmp_path: Path) -> None:
    table = pa.table({"text_sentences": texts(), EMBEDDING_COLUMN: pa.array(nested(), fixed(pa.float32()))})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=2, compression=codec, data_page_version=version)
    header = footers.DATA_HEADER if version == "1.0" else footers.DATA_HEADER_V2
    change_page(tmp_path / "p.parquet", 0, 1, lambda page: page[header][1].__setitem__(1, (5, value)))
    with pytest.raises(DataError, match=r"p\.parquet: row group 0 cannot be read"):
        list(open_dataset(tmp_path, on_bad_rows="skip").documents())


def test_a_page_or_footer_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    folders = []
    for field in (footers.PAGE_COMPRESSED, footers.PAGE_UNCOMPRESSED):
        folder = write_table(tmp_path / str(field), pa.array(nested(), fixed(pa.float32())), per_group=2)
        change_page(folder / "part-0.parquet", 0, 1, lambda page, f=field: page.__setitem__(f, (5, 2**31 - 1)))
        folders.append(str(folder))
    for rows in (20, 2**31):
        folder = write_table(tmp_path / str(rows), pa.array(nested(), fixed(pa.float32())), per_group=2)
        change_footer(folder / "part-0.parquet", with_rows(rows))
        folders.append(str(folder))
    code = f"""
import resource
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import DataError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in {folders!r}:
    try:
        list(ConceptParquetDataset(ConceptParquetConfig(path=folder, text_column="text_sentences")).documents())
    except DataError as error:
        assert "part-0.parquet" in str(error)
    else:
        raise SystemExit(folder)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000, "kilobytes"
