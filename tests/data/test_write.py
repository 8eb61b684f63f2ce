"""Writing Meta-format parquet that reads back the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import DataError
from tests.data.numbered import LENGTHS, open_dataset, stands_right, texts, vectors

DOCUMENTS = [NewDocument(t, vectors(i, len(t)), {"id": str(i)}) for i, t in enumerate(texts())]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_written_reads_back(dtype: str, tmp_path: Path) -> None:
    assert write_documents(tmp_path / "p.parquet", DOCUMENTS, dtype=dtype) == len(LENGTHS)  # type: ignore[arg-type]
    documents = list(open_dataset(tmp_path, text_column="text_sentences", id_column="id").documents())
    assert all(stands_right(d) for d in documents) and {d.concepts.dtype.name for d in documents} == {dtype}
    assert [d.sentences for d in documents] == texts()


def test_row_groups_are_bounded_in_concepts(tmp_path: Path) -> None:
    write_documents(tmp_path / "p.parquet", DOCUMENTS, concepts_per_row_group=5)
    metadata = pq.read_metadata(tmp_path / "p.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 1, 1]


def test_wide_vectors_make_smaller_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexalcm.data.write_table._MOST_COMPONENTS", 20)  # stands for 2^28, which a test cannot fill
    write_documents(tmp_path / "p.parquet", DOCUMENTS)
    assert pq.read_metadata(tmp_path / "p.parquet").num_row_groups == 4


@pytest.mark.parametrize(
    "documents, message",
    [
        ([], "no document to write"),
        ([NewDocument(["a"], vectors(0, 2))], "1 sentences but 2 vectors"),
        ([*DOCUMENTS, NewDocument(["a"], vectors(0, 1)[:, :3], {"id": "x"})], r"shape \[T, 4\].*\(1, 3\)"),
        ([NewDocument(["a"], vectors(0, 1)[0])], "shape"),
        ([NewDocument([], np.zeros((0, 0)))], "shape"),
        ([*DOCUMENTS, NewDocument(["a"], vectors(0, 1))], r"columns \[\], but the first one has \['id'\]"),
        ([NewDocument(["a"], vectors(0, 1)), DOCUMENTS[0]], r"columns \['id'\], but the first one has \[\]"),
        ([NewDocument(["a"], np.full((1, 4), 1e6))], "too large for float16"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(documents: list, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_documents(tmp_path / "p.parquet", documents)
    assert list(tmp_path.iterdir()) == []


def test_a_writing_that_fails_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    write_documents(tmp_path / "p.parquet", DOCUMENTS)
    before = (tmp_path / "p.parquet").read_bytes()

    def broken() -> Iterator[NewDocument]:
        yield from DOCUMENTS
        raise RuntimeError("the encoder is gone")

    with pytest.raises(RuntimeError, match="the encoder is gone"):
        write_documents(tmp_path / "p.parquet", broken(), concepts_per_row_group=2)
    assert [f.name for f in tmp_path.iterdir()] == ["p.parquet"]
    assert (tmp_path / "p.parquet").read_bytes() == before


def test_columns_are_of_metas_types_and_names(tmp_path: Path) -> None:
    write_documents(tmp_path / "p.parquet", DOCUMENTS)
    schema = pq.read_schema(tmp_path / "p.parquet")
    assert schema.names == ["id", "text_sentences", "text_sentences_sonar_emb"]
    assert schema.field("text_sentences").type == pa.list_(pa.string())
    assert str(schema.field("text_sentences_sonar_emb").type) in {
        "list<item: fixed_size_list<item: halffloat>[4]>",
        "list<element: fixed_size_list<element: halffloat>[4]>",
    }


def test_a_document_without_sentences_keeps_its_row(tmp_path: Path) -> None:
    empty = NewDocument([], np.zeros((0, 4), np.float32), {"id": "none"})
    write_documents(tmp_path / "p.parquet", [DOCUMENTS[0], empty, *DOCUMENTS[2:]])
    documents = list(open_dataset(tmp_path, text_column="text_sentences").documents())
    assert [len(d.concepts) for d in documents] == [LENGTHS[0], 0, *LENGTHS[2:]]
    assert all(stands_right(d) for d in documents)
