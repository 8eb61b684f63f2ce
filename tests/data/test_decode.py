"""Decoding: every layout gives the same documents, and nothing missing moves a neighbour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.data.decode import check_text_type, decode_sentences, decode_vectors, embedding_width
from lexalcm.errors import DataError
from tests.data.numbered import LENGTHS, WIDTH, fixed, nested, open_dataset, stands_right, texts, vectors, write_table

VARIABLE = {leaf: pa.list_(pa.list_(leaf)) for leaf in (pa.float16(), pa.float32(), pa.float64())}
LAYOUTS = [
    *(fixed(leaf) for leaf in VARIABLE),
    *VARIABLE.values(),
    fixed(pa.float16(), large=True),
    pa.large_list(pa.large_list(pa.float32())),
    pa.list_(pa.large_list(pa.float16())),
]


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
def test_every_layout_gives_the_same_documents(kind: pa.DataType, tmp_path: Path) -> None:
    documents = list(
        open_dataset(write_table(tmp_path, pa.array(nested(), kind)), text_column="text_sentences").documents()
    )
    assert [len(d.concepts) for d in documents] == LENGTHS
    assert all(stands_right(d) for d in documents)
    assert [d.sentences for d in documents] == texts()


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
@pytest.mark.parametrize("bounds", [(0, 6), (2, 3), (3, 0), (5, 1)])
def test_a_slice_shows_its_own_rows_alone(kind: pa.DataType, bounds: tuple[int, int]) -> None:
    start, count = bounds
    decoded = decode_vectors(pa.array(nested(), kind).slice(start, count), WIDTH)
    assert decoded.lengths.tolist() == LENGTHS[start : start + count]
    assert len(decoded.values) == sum(decoded.lengths)
    for i, (first, length) in enumerate(zip(decoded.starts, decoded.lengths)):
        assert np.array_equal(decoded.values[first : first + length], vectors(start + i, length))


def test_values_are_arrows_own_memory() -> None:
    chunk = pa.array(nested(), fixed(pa.float16()))
    leaf = chunk.values.values.buffers()[1]
    decoded = decode_vectors(chunk.slice(1, 3), WIDTH).values
    assert leaf.address <= decoded.ctypes.data < leaf.address + leaf.size


SPOILS: list[tuple[str, Any, set[int]]] = [
    ("a null list", lambda x: x.__setitem__(1, None), {1}),
    ("a null vector", lambda x: x[2].__setitem__(0, None), {2}),
    ("a document of null vectors", lambda x: x.__setitem__(4, [None] * 5), {4}),
    ("a null component", lambda x: x[0][2].__setitem__(1, None), {0}),
    (
        "everything at once",
        lambda x: (x.__setitem__(0, None), x[2].__setitem__(3, None), x[5][1].__setitem__(0, None)),
        {0, 2, 5},
    ),
]


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
@pytest.mark.parametrize("name, spoil, bad", SPOILS, ids=[s[0] for s in SPOILS])
def test_what_is_null_is_skipped_and_shifts_nothing(
    name: str, spoil: Any, bad: set[int], kind: pa.DataType, tmp_path: Path
) -> None:
    documents = nested()
    spoil(documents)
    dataset = open_dataset(write_table(tmp_path, pa.array(documents, kind)), on_bad_rows="skip")
    found = list(dataset.documents())
    assert [d.row for d in found] == [i for i in range(len(LENGTHS)) if i not in bad]
    assert all(stands_right(d) for d in found)


@pytest.mark.parametrize("kind", [k for k in LAYOUTS if not pa.types.is_fixed_size_list(k.value_type)], ids=str)
def test_a_vector_of_another_width_spoils_its_document_alone(kind: pa.DataType, tmp_path: Path) -> None:
    documents = nested()
    documents[2][1] = documents[2][1][:3]
    documents[4][0] = []
    dataset = open_dataset(write_table(tmp_path, pa.array(documents, kind)), on_bad_rows="skip")
    assert dataset.concept_dim == WIDTH
    found = list(dataset.documents())
    assert [d.row for d in found] == [0, 1, 3, 5] and all(stands_right(d) for d in found)


def test_an_outer_list_of_fixed_size_is_read_too(tmp_path: Path) -> None:
    kind = pa.list_(pa.list_(pa.float32(), WIDTH), 2)
    folder = write_table(tmp_path, pa.array(nested([2] * 6), kind), text=texts([2] * 6))
    assert all(stands_right(d) for d in open_dataset(folder, text_column="text_sentences").documents())


def test_extension_types_are_read_by_their_storage(tmp_path: Path) -> None:
    plain = pa.array(nested(), fixed(pa.float32()))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [WIDTH]), plain.values)
    folder = write_table(tmp_path, pa.ListArray.from_arrays(plain.offsets, tensors))
    assert sum(stands_right(d) for d in open_dataset(folder).documents()) == len(LENGTHS)


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.list_(pa.float32()),
        pa.list_(pa.float32(), WIDTH),
        pa.list_(pa.list_(pa.int8())),
        pa.list_(pa.list_(pa.decimal128(9, 3))),
        pa.list_(pa.binary()),
        pa.list_(pa.struct([("v", pa.list_(pa.float32()))])),
        pa.list_(pa.list_(pa.list_(pa.float32()))),
        pa.list_(pa.null()),
        pa.map_(pa.string(), pa.list_(pa.float32())),
        pa.null(),
    ],
    ids=str,
)
def test_other_types_are_refused_by_name(kind: pa.DataType) -> None:
    with pytest.raises(DataError, match=r"a\.parquet: column `emb` must be a list of vectors"):
        embedding_width(kind, file="a.parquet", column="emb")


def test_sentences_of_a_dictionary_slice_are_those_of_their_rows() -> None:
    chunk = pa.array(texts(), pa.list_(pa.dictionary(pa.int8(), pa.string()))).slice(2, 3)
    decoded = decode_sentences(chunk)
    assert [decoded.of(i) for i in range(3)] == texts()[2:5]


def test_bytes_that_are_not_text_are_found() -> None:
    raw = pa.array([[b"good", b"\xff\xfe"], [b"fine"]], pa.list_(pa.binary()))
    text = pa.Array.from_buffers(pa.string(), 3, raw.values.buffers())
    decoded = decode_sentences(pa.ListArray.from_arrays(raw.offsets, text))
    assert decoded.not_text.tolist() == [1] and decoded.of(1) == ["fine"]


@pytest.mark.parametrize("leaf", VARIABLE, ids=str)
@pytest.mark.parametrize("large", [False, True])
def test_fixed_width_vectors_are_a_view_whatever_the_slice(leaf: pa.DataType, large: bool) -> None:
    chunk = pa.array(nested(), fixed(leaf, large=large))
    own = np.frombuffer(chunk.values.values.buffers()[1], leaf.to_pandas_dtype())
    for start, count in ((0, 6), (1, 3), (4, 2)):
        decoded = decode_vectors(chunk.slice(start, count), WIDTH)
        assert decoded.widths is None and np.shares_memory(decoded.values, own)
        assert decoded.values.dtype == leaf.to_pandas_dtype()


def test_vectors_of_variable_width_are_a_view_too_if_all_are_alike() -> None:
    chunk = pa.array(nested(), VARIABLE[pa.float16()])
    own = np.frombuffer(chunk.values.values.buffers()[1], np.float16)
    assert np.shares_memory(decode_vectors(chunk, WIDTH).values, own)


@pytest.mark.parametrize("leaf", VARIABLE, ids=str)
def test_children_that_are_slices_themselves_keep_their_place(leaf: pa.DataType) -> None:
    numbers = pa.array(np.arange(40, dtype=leaf.to_pandas_dtype())).slice(4, 32)
    inner = pa.FixedSizeListArray.from_arrays(numbers, WIDTH)
    middle = inner.slice(2, 5)
    assert middle.offset == 2
    decoded = decode_vectors(pa.ListArray.from_arrays(pa.array([1, 3, 5], pa.int32()), middle), WIDTH)
    found = [decoded.values[s : s + n, 0].tolist() for s, n in zip(decoded.starts, decoded.lengths)]
    assert found == [[16.0, 20.0], [24.0, 28.0]]  # numbers begin at 4; the vectors 3 to 6 are asked for


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
def test_nulls_of_a_slice_are_told_by_their_own_place(kind: pa.DataType) -> None:
    documents = nested()
    documents[1] = None
    documents[2][0] = None
    documents[4][3][2] = None
    decoded = decode_vectors(pa.array(documents, kind).slice(1, 4), WIDTH)
    assert decoded.null_rows.tolist() == [True, False, False, False]
    starts = decoded.starts.tolist()
    assert np.flatnonzero(decoded.null_vectors).tolist() == [starts[1], starts[3] + 3]
    for row, length in ((2, 1), (3, 3)):
        found = decoded.values[starts[row] : starts[row] + length]
        assert np.array_equal(found, vectors(row + 1, length))


def test_what_lies_beneath_a_null_row_belongs_to_no_one_else() -> None:
    inner = pa.array([v for document in nested([2, 3, 2]) for v in document], pa.list_(pa.float32(), WIDTH))
    mask = pa.array([False, True, False])
    chunk = pa.ListArray.from_arrays(pa.array([0, 2, 5, 7], pa.int32()), inner, mask=mask)
    decoded = decode_vectors(chunk, WIDTH)
    assert decoded.null_rows.tolist() == [False, True, False]
    assert np.array_equal(decoded.values[decoded.starts[2] :][:2], vectors(2, 2))


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
@pytest.mark.parametrize("documents", [[], [[]], [None], [[], None, []]], ids=str)
def test_arrays_without_a_vector_decode(kind: pa.DataType, documents: list) -> None:
    decoded = decode_vectors(pa.array(documents, kind), WIDTH)
    assert decoded.values.shape == (0, WIDTH)
    assert decoded.lengths.tolist() == [0] * len(documents)
    assert decoded.null_rows.tolist() == [d is None for d in documents]


def test_the_width_is_that_of_the_type_or_open() -> None:
    assert embedding_width(fixed(pa.float16()), file="f", column="c") == WIDTH
    assert embedding_width(VARIABLE[pa.float32()], file="f", column="c") is None


@pytest.mark.parametrize(
    "kind, hint",
    [(pa.list_(pa.float32(), WIDTH), "one vector a document"), (pa.list_(pa.null()), "All its rows are empty")],
    ids=str,
)
def test_a_likely_reason_for_another_type_is_said(kind: pa.DataType, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        embedding_width(kind, file="f", column="c")


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())], ids=str)
def test_sentences_of_a_slice_with_nulls_are_those_of_their_rows(kind: pa.DataType) -> None:
    text: list[Any] = texts()
    text[1], text[3] = None, []
    text[4][2] = None
    decoded = decode_sentences(pa.array(text, kind).slice(1, 4))
    assert decoded.null_rows.tolist() == [True, False, False, False]
    assert [decoded.of(i) for i in range(1, 4)] == text[2:5]
    assert len(decoded.not_text) == 0


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.list_(pa.int64()), pa.list_(pa.binary()), pa.list_(pa.list_(pa.string()))]
)
def test_text_of_another_type_is_refused_by_name(kind: pa.DataType) -> None:
    with pytest.raises(DataError, match=r"f: column `text` must be a list of strings"):
        check_text_type(kind, file="f", column="text")
