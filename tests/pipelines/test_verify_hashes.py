"""Documents have the same hash exactly if they are the same, wherever in a chunk they stand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.data.decode import decode_sentences, decode_vectors
from lexalcm.pipelines.verify.hashes import hashes_of_ids, hashes_of_text, hashes_of_vectors, hashes_together

TEXTS = [["ab", "c"], ["a", "bc"], ["ab", "c"], ["abc"], ["ab", "c", ""], ["\u732b", "c"]]
VECTORS = [[[1.0, 2.0]], [[2.0, 1.0]], [[1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.5]]]


def alike(hashes: list[bytes]) -> list[int]:
    """The first of the equal ones, for each one."""
    assert all(len(h) == 16 for h in hashes)
    return [hashes.index(h) for h in hashes]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_texts_are_told_apart_by_where_sentences_end(kind: pa.DataType) -> None:
    chunk = pa.array(TEXTS, pa.list_(kind))
    assert alike(hashes_of_text(decode_sentences(chunk), np.arange(6))) == [0, 1, 0, 3, 4, 5]


def test_the_type_of_strings_and_a_slice_do_not_change_a_hash() -> None:
    whole = decode_sentences(pa.array(TEXTS, pa.list_(pa.string())))
    part = decode_sentences(pa.array(TEXTS, pa.large_list(pa.large_string())).slice(2))
    assert hashes_of_text(part, np.arange(4)) == hashes_of_text(whole, np.arange(2, 6))


@pytest.mark.parametrize("leaf", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_vectors_are_told_apart_by_their_order_and_number(leaf: pa.DataType) -> None:
    chunk = pa.array([[[9.0, 9.0]], *VECTORS], pa.list_(pa.list_(leaf, 2))).slice(1)
    assert alike(hashes_of_vectors(decode_vectors(chunk, 2), np.arange(5))) == [0, 1, 0, 3, 4]


def test_pairs_are_alike_if_both_of_their_parts_are() -> None:
    assert alike(hashes_together([b"a", b"a", b"b", b"a"], [b"x", b"y", b"x", b"x"])) == [0, 1, 2, 0]


def test_ids_are_compared_as_text_within_a_source() -> None:
    kept = np.asarray([True, True, False, True, True])
    rows, numbers = hashes_of_ids(pa.array([7, None, 8, 7, 9]), kept, source=0)
    assert rows.tolist() == [0, 3, 4] and alike(numbers) == [0, 0, 2]
    texts = pa.array(["7", None, "8", "7", "9"])
    assert hashes_of_ids(texts, kept, source=0)[1] == numbers
    assert not set(hashes_of_ids(texts, kept, source=1)[1]) & set(numbers)


def test_a_null_of_a_dictionary_is_no_id() -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int8()), pa.array(["a", None]))
    rows, hashes = hashes_of_ids(ids, np.ones(4, dtype=bool), source=0)
    assert rows.tolist() == [0, 3] and hashes[0] == hashes[1]


def test_an_id_that_is_not_utf8_is_refused() -> None:
    raw = pa.array([b"a", b"\xff"])
    with pytest.raises(pa.ArrowInvalid):
        hashes_of_ids(pa.Array.from_buffers(pa.string(), 2, raw.buffers()), np.ones(2, dtype=bool), source=0)
