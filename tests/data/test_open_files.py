"""Reading parts of row groups, and files that are damaged inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.discover import DataFile, discover
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig, ReadingConfig
from lexalcm.errors import DataError
from tests.data.numbered import fixed, nested, open_dataset, stands_right, texts, write_table

LENGTHS = [1 + i % 5 for i in range(60)]


@pytest.fixture
def file(tmp_path: Path) -> DataFile:
    folder = write_table(tmp_path, pa.array(nested(LENGTHS), fixed(pa.float32())), text=texts(LENGTHS), per_group=50)
    return discover(str(folder), EMBEDDING_COLUMN)[0]


def first_components(table: pa.Table) -> list[int]:
    return [int(row[0][0]) - 1 for row in table.column(EMBEDDING_COLUMN).to_pylist()]


@pytest.mark.parametrize("step", [1, 7, 50])
@pytest.mark.parametrize(
    "parts", [[(0, 50)], [(0, 20), (20, 33), (33, 50)], [(30, 40), (10, 15)], [(5, 9), (20, 50), (0, 3), (3, 4)]]
)
def test_parts_are_the_rows_asked_for_in_any_sequence(file: DataFile, step: int, parts: list[tuple[int, int]]) -> None:
    files = OpenFiles()
    for start, stop in parts:
        table = files.read_part(file, 0, [EMBEDDING_COLUMN], start, stop, step=step)
        assert first_components(table) == list(range(start, stop))


def test_whole_row_groups_come_in_order_and_more_files_than_are_kept_open(tmp_path: Path) -> None:
    files = OpenFiles()
    for number in range(20):
        write_table(tmp_path / str(number), pa.array(nested(), fixed(pa.float32())))
    for _ in range(2):
        for data_file in discover(str(tmp_path), EMBEDDING_COLUMN):
            assert first_components(files.read_groups(data_file, [0, 1], [EMBEDDING_COLUMN])) == list(range(6))


@pytest.mark.parametrize("step", [1, 7, 200])
def test_row_groups_decoded_in_steps_are_the_same(tmp_path: Path, step: int) -> None:
    folder = write_table(tmp_path, pa.array(nested(LENGTHS), fixed(pa.float32())), text=texts(LENGTHS), per_group=20)
    (data_file,) = discover(str(folder), EMBEDDING_COLUMN)
    for groups in ([0], [1, 2]):
        names = [EMBEDDING_COLUMN, "text_sentences"]
        whole = OpenFiles().read_groups(data_file, groups, names)
        stepped = OpenFiles().read_groups(data_file, groups, names, step=step)
        assert stepped.equals(whole) and stepped.column(0).num_chunks == -(-whole.num_rows // step)


def test_a_large_row_group_is_trained_on_in_parts(file: DataFile) -> None:
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=file.path))
    reader = dataset.create_reader(None, ReadingConfig(shuffle_window=12, concepts_per_batch=128, max_seq_len=128))
    seen = []
    for (batch,) in reader:
        assert batch.ids is not None
        rows = np.repeat(batch.ids.row, batch.layout.lengths)
        assert (batch.concepts[:, 0].numpy() == rows + 1).all()
        seen += batch.ids.row.tolist()
    assert sorted(seen) == list(range(60))
    reader.close()


def damage(path: Path, *, place: int, value: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= value
    path.write_bytes(bytes(content))


def test_a_page_whose_checksum_does_not_hold_is_an_error(tmp_path: Path) -> None:
    table = pa.table({"text_sentences": texts(), EMBEDDING_COLUMN: pa.array(nested(), fixed(pa.float32()))})
    path = tmp_path / "p.parquet"
    pq.write_table(table, path, row_group_size=2, compression="none", write_page_checksum=True)
    column = pq.read_metadata(path).row_group(1).column(1)
    damage(path, place=column.data_page_offset + column.total_compressed_size // 2, value=1)
    with pytest.raises(DataError, match=r"p\.parquet: row group \d+ cannot be read: .*\n.*damaged"):
        list(open_dataset(tmp_path, on_bad_rows="skip").documents())


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("intact")
    table = pa.table({"text_sentences": texts(), EMBEDDING_COLUMN: pa.array(nested(), fixed(pa.float32()))})
    pq.write_table(table, folder / "p.parquet", row_group_size=2, write_page_checksum=True)
    return (folder / "p.parquet").read_bytes()


def test_no_flipped_byte_of_a_footer_ends_the_process_or_moves_a_vector(intact: bytes, tmp_path: Path) -> None:
    length = int.from_bytes(intact[-8:-4], "little") + 8
    for place in range(len(intact) - length, len(intact)):
        content = bytearray(intact)
        content[place] ^= 0x02
        (tmp_path / "p.parquet").write_bytes(bytes(content))
        assert_error_or_right_vectors(tmp_path)


def assert_error_or_right_vectors(folder: Path) -> None:
    try:
        documents = list(open_dataset(folder, text_column="text_sentences", concept_dim=4).documents())
    except DataError as error:
        assert len(str(error).splitlines()) <= 3
    else:
        # Pages have checksums; a flip in the footer may leave rows out or pass unread, but moves no vector.
        assert all(stands_right(d) for d in documents)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_give_our_error_or_the_right_vectors(intact: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    (tmp_path / "p.parquet").write_bytes(bytes(content[:cut]))
    assert_error_or_right_vectors(tmp_path)
