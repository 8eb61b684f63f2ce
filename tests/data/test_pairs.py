"""Sources and targets of two columns become documents; nothing is shifted by nulls, slices or empty rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.data.decode import decode_sentences, decode_vectors
from lexalcm.data.pairs import join_sentences, join_vectors
from tests.data.pairs import nested

LENGTHS = [(2, 1), (0, 2), (3, 0), (0, 0), (1, 1)]


def column(rows: list, leaf: pa.DataType) -> pa.Array:
    # A slice of a longer column, so that its offsets do not begin at 0.
    return pa.array([rows[0], *rows], pa.list_(pa.list_(leaf, 4))).slice(1)


@pytest.mark.parametrize("leaves", [(pa.float32(), pa.float32()), (pa.float16(), pa.float64())])
def test_each_document_is_its_source_and_then_its_target(leaves: tuple[pa.DataType, pa.DataType]) -> None:
    sources, targets = nested(LENGTHS)
    parts = [decode_vectors(column(rows, leaf), 4) for rows, leaf in zip((sources, targets), leaves)]
    joined = join_vectors(*parts)
    assert joined.values.dtype == np.result_type(*(part.values for part in parts))
    for row, (source, target) in enumerate(zip(sources, targets)):
        start, length = joined.starts[row], joined.lengths[row]
        assert joined.values[start : start + length].tolist() == source + target


def test_a_null_stays_with_its_row() -> None:
    sources, targets = nested(LENGTHS)
    targets[0][0] = None
    sources[4] = None
    joined = join_vectors(*(decode_vectors(column(rows, pa.float32()), 4) for rows in (sources, targets)))
    assert joined.null_rows.tolist() == [False] * 4 + [True]
    assert np.flatnonzero(joined.null_vectors).tolist() == [2]


def test_text_is_joined_alike() -> None:
    sources, targets = [["a", "b"], [], ["c"]], [["d"], ["e", None], []]
    kinds = (pa.list_(pa.string()), pa.large_list(pa.large_string()))
    parts = [decode_sentences(pa.array(rows, kind)) for rows, kind in zip((sources, targets), kinds)]
    joined = join_sentences(*parts)
    assert [joined.of(row) for row in range(3)] == [["a", "b", "d"], ["e", None], ["c"]]


def test_sentences_that_are_no_text_are_known_by_their_new_places() -> None:
    raw = pa.array([[b"a", b"\xff"], [b"b"]], pa.list_(pa.binary()))
    broken = pa.ListArray.from_arrays(raw.offsets, raw.values.view(pa.string()))
    fine = pa.array([["x"], ["y"]], pa.list_(pa.string()))
    # In order: x, a, (broken), y, b.
    assert join_sentences(decode_sentences(fine), decode_sentences(broken)).not_text.tolist() == [2]
