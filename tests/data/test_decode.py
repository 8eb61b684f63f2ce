"""Decoding: every layout gives the same documents, and nothing missing moves a neighbour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.data.decode import decode_sentences, decode_vectors, embedding_width
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
    documents = list(open_dataset(write_table(tmp_path, pa.array(nested(), kind)), text_column="text_sentences").documents())
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
    ("everything at once", lambda x: (x.__setitem__(0, None), x[2].__setitem__(3, None), x[5][1].__setitem__(0, None)), {0, 2, 5}),
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
