"""Tables become one complete file, in row groups counted in concepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.write_table import ParquetTableWriter, values_at_a_time
from lexalcm.errors import DataError

LENGTHS = (2, 3, 0, 9, 1, 1)


def table(lengths: tuple[int, ...] = LENGTHS) -> pa.Table:
    """Documents whose vectors count up."""
    values = pa.array(np.arange(sum(lengths) * 2, dtype=np.float32))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    vectors = pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, 2))
    return pa.table({"id": [f"d{i}" for i in range(len(lengths))], "emb": vectors})


def writer(path: Path, **options: int) -> ParquetTableWriter:
    return ParquetTableWriter(path, table().schema, embedding_columns=["emb"], **options)


def test_rows_come_back_in_row_groups_bounded_in_concepts(tmp_path: Path) -> None:
    with writer(tmp_path / "p.parquet", concepts_per_row_group=5) as out:
        out.write(table().slice(0, 1))
        out.write(table().slice(1))
    footer = pq.read_metadata(tmp_path / "p.parquet")
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [3, 1, 2]
    assert pq.read_table(tmp_path / "p.parquet").equals(table())
    assert out.num_rows == len(LENGTHS)


def test_how_rows_are_handed_over_does_not_show_in_the_file(tmp_path: Path) -> None:
    with writer(tmp_path / "a.parquet", concepts_per_row_group=4) as out:
        out.write(table())
    with writer(tmp_path / "b.parquet", concepts_per_row_group=4) as out:
        for row in range(len(LENGTHS)):
            out.write(table().slice(row, 1))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("leaf", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_embeddings_are_stored_plainly_and_without_statistics(leaf: pa.DataType, tmp_path: Path) -> None:
    whole = table().set_column(1, "emb", table().column("emb").cast(pa.list_(pa.list_(leaf, 2))))
    with ParquetTableWriter(tmp_path / "p.parquet", whole.schema, embedding_columns=["emb"]) as out:
        out.write(whole)
    ids, vectors = (pq.read_metadata(tmp_path / "p.parquet").row_group(0).column(i) for i in range(2))
    assert set(vectors.encodings) == {"PLAIN", "RLE"}, "what Arrow 15 reads too"
    assert vectors.statistics is None and ids.statistics.max == "d5"
    assert pq.read_table(tmp_path / "p.parquet").equals(whole)


def test_many_values_are_encoded_at_a_time_unless_texts_are_long() -> None:
    short, long = (pa.table({"text": ["x" * size] * 8}) for size in (100, 5_000))
    assert values_at_a_time(short) == 1 << 16
    assert values_at_a_time(long) == 1 << 11
    assert values_at_a_time(pa.table({"text": ["x" * (1 << 20)]})) == 1 << 10
    assert values_at_a_time(short.slice(0, 0)) == values_at_a_time(pa.table({})) == 1 << 16


def test_a_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    with writer(tmp_path / "deep" / "p.parquet"):
        pass
    assert pq.read_table(tmp_path / "deep" / "p.parquet").schema.equals(table().schema)


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="gone"), writer(tmp_path / "p.parquet", concepts_per_row_group=1) as out:
        out.write(table())
        raise RuntimeError("gone")
    assert [f.name for f in tmp_path.iterdir()] == ["p.parquet"]
    assert (tmp_path / "p.parquet").read_bytes() == b"old"


def test_columns_in_another_order_are_put_right_and_others_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "p.parquet") as out:
        out.write(table().select(["emb", "id"]))
        with pytest.raises(DataError, match=r"has the columns \['id', 'emb'\], but rows to write have \['emb'\]"):
            out.write(table().select(["emb"]))
    assert pq.read_table(tmp_path / "p.parquet").equals(table())
    with pytest.raises(DataError, match="no column `vectors`"):
        ParquetTableWriter(tmp_path / "q.parquet", table().schema, embedding_columns=["vectors"])


def test_a_byte_that_changed_on_the_disk_is_noticed(tmp_path: Path) -> None:
    with writer(tmp_path / "p.parquet") as out:
        out.write(table((200,)))
    content = bytearray((tmp_path / "p.parquet").read_bytes())
    column = pq.read_metadata(tmp_path / "p.parquet").row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size - 20] ^= 1
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(OSError, match="CRC|crc"):
        pq.ParquetFile(tmp_path / "p.parquet", page_checksum_verification=True).read()
