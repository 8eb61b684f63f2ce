"""Bad documents are found by reason, and skipped documents are counted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.data.decode import decode_sentences, decode_vectors
from lexalcm.data.validate import BadRowCounter, bad_rows, finite_and_nonzero, kinds_of, whole_chunk_has_other_width
from lexalcm.errors import DataError
from tests.data.numbered import WIDTH, fixed, nested, texts


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_vector_is_judged_by_itself(dtype: type) -> None:
    x = np.full((100_000, 3), 0.25, dtype)
    x[7, 2], x[40_000, 0], x[-1, 1] = np.nan, np.inf, -np.inf
    x[3], x[99_000] = 0.0, -0.0
    x[5] = [0.0, np.finfo(dtype).max if dtype != np.float64 else 3e38, 0.0]
    x[6] = [0.0, np.finfo(np.float16).smallest_subnormal, -0.0]
    finite, nonzero = finite_and_nonzero(x)
    assert np.flatnonzero(~finite).tolist() == [7, 40_000, 99_999]
    assert np.flatnonzero(~nonzero).tolist() == [3, 99_000]


def test_doubles_are_judged_as_the_floats_they_become() -> None:
    finite, nonzero = finite_and_nonzero(np.asarray([[1e300, 1.0], [1e-300, 0.0], [1.0, 1e-300]]))
    assert finite.tolist() == [False, True, True] and nonzero.tolist() == [True, False, True]


def reasons(embeddings: list, text: list | None = None) -> dict[int, str]:
    vectors = decode_vectors(pa.array(embeddings, fixed(pa.float32())), WIDTH)
    return bad_rows(vectors, None if text is None else decode_sentences(pa.array(text, pa.list_(pa.string()))))


def test_good_documents_have_no_reason() -> None:
    assert reasons(nested(), texts()) == {}
    assert reasons([[], *nested([2])], [[], ["a", "b"]]) == {}


def test_a_document_is_blamed_by_its_first_fault_with_the_sentence() -> None:
    documents = nested([2, 0, 3, 0, 2])
    documents[2][1][0] = float("nan")
    documents[2][2] = [0.0] * WIDTH
    documents[4][0] = [0.0] * WIDTH
    assert reasons(documents) == {2: "NaN or infinity in sentence 1", 4: "a zero vector in sentence 0"}


def test_text_must_match_its_embeddings() -> None:
    text = texts([2, 3, 2, 2, 2])
    text[0] = ["one"]
    text[2][1] = None
    text[3] = None
    embeddings = nested([2, 3, 2, 2, 0])
    found = reasons(embeddings, text)
    assert found == {
        0: "counts differ: 1 sentences but 2 embeddings",
        2: "a null sentence",
        3: "the list of sentences is null",
        4: "text without embeddings",
    }


def test_skipped_documents_are_counted_by_reason() -> None:
    counter = BadRowCounter(skip=True, max_share=1.0)
    counter.add(5, {1: "a null in sentence 3", 2: "a null in sentence 0"}, file="f", row_group=0, first_row=0)
    counter.add(5, {0: "counts differ: 1 sentences but 2 embeddings"}, file="f", row_group=1, first_row=0)
    assert counter.seen == 10 and dict(counter.by_reason) == {"a null": 2, "counts differ": 1}
    assert counter.summary() == "a null: 2, counts differ: 1"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("the list of embeddings is null", "null_embeddings"),
        ("the list of sentences is null", "null_sentences"),
        ("a null in sentence 1", "null_vector"),
        ("a null sentence", "null_sentence"),
        ("a vector that is not 4 wide in sentence 0", "other_width"),
        ("NaN or infinity in sentence 2", "not_finite"),
        ("a zero vector in sentence 0", "zero_vector"),
        ("text without embeddings", "no_embeddings"),
        ("text that is not UTF-8", "not_text"),
    ],
)
def test_every_reason_has_a_kind(reason: str, kind: str) -> None:
    assert kinds_of([reason, reason]) == {kind: 2}


def test_an_error_names_file_row_group_and_row() -> None:
    counter = BadRowCounter(skip=False, max_share=1.0)
    with pytest.raises(DataError, match=r"f\.parquet: row group 3, row 12: a null\. 1 more"):
        counter.add(9, {2: "a null", 5: "a null"}, file="f.parquet", row_group=3, first_row=10)


def test_more_bad_documents_than_allowed_stop_once_a_thousand_were_seen() -> None:
    counter = BadRowCounter(skip=True, max_share=0.01)
    counter.add(500, {i: "a null" for i in range(10)}, file="f", row_group=0, first_row=0)
    counter.add(1500, {i: "a null" for i in range(10)}, file="f", row_group=1, first_row=0)
    with pytest.raises(DataError, match=r"21 of the first 2,001 documents are bad .*1%"):
        counter.add(1, {0: "a null"}, file="f", row_group=2, first_row=0)


@pytest.mark.parametrize("leaf", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_component_spoils_its_document_alone(leaf: pa.DataType, value: float) -> None:
    documents = nested()
    documents[3][0][WIDTH - 1] = value
    assert bad_rows(decode_vectors(pa.array(documents, fixed(leaf)), WIDTH), None) == {
        3: "NaN or infinity in sentence 0"
    }


def test_nulls_are_blamed_on_their_documents_beside_empty_ones() -> None:
    documents = nested([0, 2, 0, 0, 3, 0])
    documents[1][1] = None
    documents[2] = None
    documents[4][2][1] = None
    assert reasons(documents) == {
        1: "a null in sentence 1",
        2: "the list of embeddings is null",
        4: "a null in sentence 2",
    }


def test_a_vector_of_another_width_is_said_with_the_expected_one() -> None:
    documents = nested()
    documents[2][3] = [1.0] * 3
    vectors = decode_vectors(pa.array(documents, pa.list_(pa.list_(pa.float32()))), WIDTH)
    assert bad_rows(vectors, None) == {2: "a vector that is not 4 wide in sentence 3"}
    assert whole_chunk_has_other_width(vectors) is None


def test_a_file_whose_vectors_all_have_another_width_is_told_from_one_bad_row() -> None:
    kind = pa.list_(pa.list_(pa.float32()))
    narrow = [[vector[:3] for vector in document] for document in nested()]
    assert whole_chunk_has_other_width(decode_vectors(pa.array(narrow, kind), WIDTH)) == 3
    assert whole_chunk_has_other_width(decode_vectors(pa.array(narrow[:1], kind), WIDTH)) is None
    assert whole_chunk_has_other_width(decode_vectors(pa.array(nested(), kind), WIDTH)) is None


def test_text_that_is_null_beside_an_empty_document_is_no_fault() -> None:
    assert reasons([[], *nested([2])], [None, ["a", "b"]]) == {}


def test_a_share_that_is_just_allowed_goes_on() -> None:
    counter = BadRowCounter(skip=True, max_share=0.01)
    counter.add(1000, {i: "a null" for i in range(10)}, file="f", row_group=0, first_row=0)
    counter.add(1000, {}, file="f", row_group=1, first_row=0)
    assert (counter.num_bad, counter.seen) == (10, 2000)
