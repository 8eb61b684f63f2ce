"""What looks like a mistake is said once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lexalcm.data.decode import decode_vectors
from lexalcm.data.discover import DataWarning
from lexalcm.data.watch import Watch
from tests.data.numbered import LENGTHS, fixed, nested, open_dataset, texts, write_table


def told(folder: Path, **fields: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(open_dataset(folder, text_column="text_sentences", **fields).documents())
    return [str(w.message) for w in caught if issubclass(w.category, DataWarning)]


def write(folder: Path, documents: list[Any] | None = None, text: Any = None, **columns: Any) -> Path:
    embeddings = pa.array(nested() if documents is None else documents, fixed(pa.float32()))
    return write_table(folder, embeddings, text=text, per_group=2, **columns)


def test_ordinary_data_is_passed_in_silence(tmp_path: Path) -> None:
    assert told(write(tmp_path, id=list("abcdef")), id_column="id") == []


def spoilt_text(value: str) -> list[Any]:
    text = texts()
    text[0][0] = text[4][2] = value
    return text


@pytest.mark.parametrize(
    "value, message", [("x" * 251, "251 characters"), (" \t", "empty or blank"), ("", "empty or blank")]
)
def test_odd_sentences_are_told_once(value: str, message: str, tmp_path: Path) -> None:
    (text,) = told(write(tmp_path, text=spoilt_text(value)))
    assert message in text and "part-0.parquet" in text


def test_a_sentence_of_250_characters_is_none_too_long(tmp_path: Path) -> None:
    assert told(write(tmp_path, text=spoilt_text("\u65e5" * 250))) == []


def test_a_constant_vector_is_told_once(tmp_path: Path) -> None:
    documents = nested()
    documents[1][0] = documents[5][1] = [0.5] * 4
    (text,) = told(write(tmp_path, documents))
    assert "same value in every component" in text


def test_what_lies_in_memory_under_a_null_is_not_looked_at(recwarn: pytest.WarningsRecorder) -> None:
    values = pa.array([1.0, 2.0, 3.0, 5.0, 5.0, 5.0], pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(values, 3, mask=pa.array([False, True]))
    decoded = decode_vectors(pa.ListArray.from_arrays([0, 2], vectors), 3)
    assert decoded.values[1].tolist() == [5.0] * 3
    Watch("here").look(decoded, None, None, file="part-0.parquet")
    assert not recwarn.list


def test_a_document_stored_twice_is_told(tmp_path: Path) -> None:
    documents = nested()
    documents[5] = documents[0]
    text = texts()
    text[5] = text[0]
    (message,) = told(write(tmp_path, documents, text))
    assert "stored twice" in message


@pytest.mark.parametrize("ids", [list("abcdea"), [1, 2, 3, 4, 5, 1]])
def test_an_id_that_comes_twice_is_told(ids: list[Any], tmp_path: Path) -> None:
    (message,) = told(write(tmp_path, id=ids), id_column="id")
    assert "same id" in message


def test_documents_of_one_sentence_give_nothing_to_predict(tmp_path: Path) -> None:
    (message,) = told(write(tmp_path, nested([1] * len(LENGTHS)), texts([1] * len(LENGTHS))))
    assert "nothing to predict" in message
