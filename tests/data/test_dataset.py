"""Opening a dataset: what it holds, and what does not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig, ReadingConfig, SourceConfig
from lexalcm.errors import DataError
from tests.data.numbered import LENGTHS, WIDTH, fixed, nested, open_dataset, stands_right, texts, write_table


def put(folder: Path, kind: pa.DataType | None = None, **columns: Any) -> Path:
    return write_table(folder, pa.array(nested(), kind or fixed(pa.float32())), **columns)


@pytest.mark.filterwarnings("ignore:.*stored twice")
def test_documents_come_in_file_order_under_ids_that_tell_where(tmp_path: Path) -> None:
    for name in ("b", "a"):
        put(tmp_path / "d" / f"split={name}")
    documents = list(open_dataset(tmp_path / "d", text_column="text_sentences").documents())
    assert [d.id for d in documents] == [f"d:split={s}/part-0.parquet:{i}" for s in ("a", "b") for i in range(6)]
    assert all(stands_right(d) for d in documents)
    assert [d.sentences for d in documents] == texts() * 2
    assert all(d.file.endswith(d.id.split(":")[1]) for d in documents)


def test_a_documents_concepts_are_its_own_memory(tmp_path: Path) -> None:
    first, second, *_ = open_dataset(put(tmp_path)).documents()
    first.concepts[:] = 0
    assert first.concepts.flags.writeable and stands_right(second)


def test_text_is_not_read_unless_asked_for(tmp_path: Path) -> None:
    assert {d.sentences for d in open_dataset(put(tmp_path)).documents()} == {None}


def test_counts_and_width_are_known_from_footers(tmp_path: Path) -> None:
    put(tmp_path / "Train")
    put(tmp_path / "Val")
    dataset = open_dataset(tmp_path)
    assert (dataset.num_rows(), dataset.num_rows("train"), dataset.concept_dim) == (12, 6, WIDTH)
    assert dataset.splits == ["train", "validation"]
    assert "2 file(s)" in dataset.describe() and "12 documents (train: 6, validation: 6)" in dataset.describe()


def test_the_width_of_open_lists_is_that_of_most_vectors(tmp_path: Path) -> None:
    documents = nested()
    documents[0] = None
    documents[1][0] = [1.0]
    documents[2][0] = None
    folder = write_table(tmp_path, pa.array(documents, pa.list_(pa.list_(pa.float32()))))
    assert open_dataset(folder, on_bad_rows="skip").concept_dim == WIDTH


def test_files_of_two_widths_are_refused_with_both(tmp_path: Path) -> None:
    put(tmp_path / "a")
    narrow = [[vector[:3] for vector in document] for document in nested()]
    write_table(tmp_path / "b", pa.array(narrow, pa.list_(pa.list_(pa.float32(), 3))))
    with pytest.raises(DataError, match=r"b/part-0\.parquet.*vectors that are 3 wide, but 4 is expected"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"4 wide, but 8 is expected"):
        open_dataset(tmp_path / "a", concept_dim=8)


@pytest.mark.parametrize("skip", ["error", "skip"])
def test_open_lists_of_another_width_are_a_wrong_file_and_no_bad_rows(skip: str, tmp_path: Path) -> None:
    put(tmp_path, pa.list_(pa.list_(pa.float32())))
    with pytest.raises(DataError, match=r"4 wide, but 8 is expected"):
        list(open_dataset(tmp_path, concept_dim=8, on_bad_rows=skip).documents())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"embedding_column": "text_sentences_sonar"}, f'`embedding_column` names.*Did you mean "{EMBEDDING_COLUMN}"'),
        ({"embedding_column": EMBEDDING_COLUMN.upper()}, f'Did you mean "{EMBEDDING_COLUMN}"'),
        ({"text_column": "text_sentence"}, '`text_column` names.*Did you mean "text_sentences"'),
        ({"id_column": "ID"}, '`id_column` names.*Did you mean "id"'),
        ({"text_column": "id"}, "`id` must be a list of strings, but is string. It holds one text a document"),
        ({"embedding_column": "text_sentences"}, "`text_sentences` must be a list of vectors"),
        ({"id_column": "text_sentences"}, "`text_sentences` must be of strings or integers"),
    ],
)
def test_a_column_that_is_missing_or_of_another_type_is_named(
    fields: dict[str, str], message: str, tmp_path: Path
) -> None:
    put(tmp_path, id=list("abcdef"))
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(tmp_path, **fields)
    assert "part-0.parquet" in str(caught.value) and len(str(caught.value).splitlines()) <= 3


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    column = pa.array(nested(), fixed(pa.float32()))
    pq.write_table(pa.Table.from_arrays([column, column], [EMBEDDING_COLUMN] * 2), tmp_path / "p.parquet")
    with pytest.raises(DataError, match=f"2 columns called `{EMBEDDING_COLUMN}`"):
        open_dataset(tmp_path)


def test_a_dataset_without_a_row_or_without_a_vector_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "none", pa.array([], fixed(pa.float32())), text=[])
    with pytest.raises(DataError, match="has no documents"):
        open_dataset(tmp_path / "none")
    write_table(tmp_path / "empty", pa.array([[], []], pa.list_(pa.list_(pa.float32()))), text=[[], []])
    with pytest.raises(DataError, match="width of a vector is not known"):
        open_dataset(tmp_path / "empty")


def test_each_source_may_have_columns_and_a_split_of_its_own(tmp_path: Path) -> None:
    put(tmp_path / "a" / "split=train")
    put(tmp_path / "a" / "split=validation")
    table = pa.table({"e": pa.array(nested(), fixed(pa.float16()))})
    (tmp_path / "b" / "split=all").mkdir(parents=True)
    pq.write_table(table, tmp_path / "b" / "split=all" / "x.parquet")
    sources = [
        SourceConfig(path=str(tmp_path / "a")),
        SourceConfig(path=str(tmp_path / "b"), embedding_column="e", split="all"),
    ]
    dataset = ConceptParquetDataset(ConceptParquetConfig(sources=sources))
    documents = list(dataset.documents("train"))
    assert [d.id for d in documents] == [
        *[f"a:split=train/part-0.parquet:{i}" for i in range(6)],
        *[f"b:split=all/x.parquet:{i}" for i in range(6)],
    ]
    assert all(stands_right(d) for d in documents)


def test_training_and_documents_read_the_same(tmp_path: Path) -> None:
    dataset = open_dataset(put(tmp_path, fixed(pa.float16())))
    ((batch,),) = list(dataset.create_reader(None, ReadingConfig(shuffle=False)))
    expected = np.concatenate([d.concepts for d in dataset.documents()]).astype(np.float32)
    assert np.array_equal(batch.concepts.numpy(), expected) and batch.layout.lengths == tuple(LENGTHS)
