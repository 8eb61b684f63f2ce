"""From Arrow's nested lists to flat vectors with document boundaries; no vector ever changes its place.

Shapes: R rows (documents) of a chunk, N vectors, C their width.

Arrow's ``flatten()`` drops null elements and so shifts everything behind them; offsets and validity are read instead,
and a slice's own offset is respected at every level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lexalcm.errors import DataError

_FLOATS = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}


@dataclass(frozen=True)
class Vectors:
    """The embeddings of a chunk of documents."""

    values: np.ndarray
    """``[N, C]`` as stored; zeros where a vector is missing or of another width."""

    starts: np.ndarray
    """int64 ``[R]``: the first vector of each document."""

    lengths: np.ndarray
    """int64 ``[R]``."""

    null_rows: np.ndarray
    """bool ``[R]``: the whole list is null."""

    null_vectors: np.ndarray
    """bool ``[N]``: the vector, or one of its components, is null."""

    widths: np.ndarray | None
    """int64 ``[N]``: the width of each vector; None where the type fixes it at C."""


def embedding_width(kind: pa.DataType, *, file: str, column: str) -> int | None:
    """Returns the width that a column's type fixes, ``None`` if it leaves it open.

    :raises DataError: The type is not a list of vectors of floats.
    """
    inner = kind.value_type if _is_list(kind) else None
    leaf = inner.value_type if inner is not None and (_is_list(inner) or pa.types.is_fixed_size_list(inner)) else None
    if leaf not in _FLOATS:
        hint = ""
        if pa.types.is_fixed_size_list(kind):
            hint = " It holds one vector a document, but a document is a list of sentences' vectors."
        elif inner is not None and inner == pa.null():
            hint = " All its rows are empty, so its type was never known."
        raise DataError(
            f"{file}: column `{column}` must be a list of vectors of halffloat, float or double, but is {kind}.{hint}"
        )
    assert inner is not None
    return inner.list_size if pa.types.is_fixed_size_list(inner) else None


def decode_vectors(chunk: pa.Array, width: int) -> Vectors:
    """Decodes a chunk of an embedding column whose type :func:`embedding_width` has accepted.

    ``values`` is a view of Arrow's own memory where every vector has ``width`` components.
    """
    offsets = chunk.offsets.to_numpy().astype(np.int64, copy=False)
    first, last = int(offsets[0]), int(offsets[-1])
    vectors = chunk.values.slice(first, last - first)
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    null_rows = _nulls(chunk)
    if pa.types.is_fixed_size_list(vectors.type):
        stored = vectors.type.list_size
        values, null_leaves = _leaf(vectors.values, vectors.offset * stored, len(vectors) * stored)
        null_vectors = _nulls(vectors) | null_leaves.reshape(-1, stored).any(axis=1)
        widths = None if stored == width else np.full(len(vectors), stored)
        matrix = values.reshape(-1, stored) if widths is None else np.zeros((len(vectors), width), values.dtype)
        return Vectors(matrix, starts, lengths, null_rows, null_vectors, widths)
    inner = vectors.offsets.to_numpy().astype(np.int64, copy=False)
    low, high = int(inner[0]), int(inner[-1])
    values, null_leaves = _leaf(vectors.values, low, high - low)
    widths = np.diff(inner)
    null_vectors = _nulls(vectors)
    if null_leaves.any():
        holes = np.add.reduceat(np.append(null_leaves, False), np.minimum(inner[:-1] - low, len(null_leaves)))
        null_vectors = null_vectors | ((holes > 0) & (widths > 0))
    if (widths == width).all():
        return Vectors(values.reshape(-1, width), starts, lengths, null_rows, null_vectors, widths)
    matrix = np.zeros((len(widths), width), values.dtype)
    fits = widths == width
    matrix[fits] = values[(inner[:-1] - low)[fits, None] + np.arange(width)]
    return Vectors(matrix, starts, lengths, null_rows, null_vectors, widths)


@dataclass(frozen=True)
class Sentences:
    """The text of a chunk of documents."""

    values: pa.Array
    """All sentences, in order."""

    starts: np.ndarray
    lengths: np.ndarray
    null_rows: np.ndarray

    def of(self, row: int) -> list[str]:
        """The sentences of one document."""
        return self.values.slice(int(self.starts[row]), int(self.lengths[row])).to_pylist()


def check_text_type(kind: pa.DataType, *, file: str, column: str) -> None:
    """:raises DataError: The type is not a list of texts."""
    inner = kind.value_type if _is_list(kind) else None
    if inner is not None and pa.types.is_dictionary(inner):
        inner = inner.value_type
    if inner is None or not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        hint = " It holds one text a document, but a document is a list of sentences." if kind == pa.string() else ""
        raise DataError(f"{file}: column `{column}` must be a list of strings, but is {kind}.{hint}")


def decode_sentences(chunk: pa.Array) -> Sentences:
    """Decodes a chunk of a text column whose type :func:`check_text_type` has accepted."""
    offsets = chunk.offsets.to_numpy().astype(np.int64, copy=False)
    first, last = int(offsets[0]), int(offsets[-1])
    return Sentences(chunk.values.slice(first, last - first), offsets[:-1] - first, np.diff(offsets), _nulls(chunk))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _nulls(array: pa.Array) -> np.ndarray:
    if array.null_count == 0:
        return np.zeros(len(array), dtype=bool)
    return array.is_null().to_numpy(zero_copy_only=False)


def _leaf(array: pa.Array, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Components as a flat view, and which of them are null."""
    array = array.slice(start, count)
    dtype = _FLOATS[array.type]
    buffer = array.buffers()[1]
    if buffer is None or count == 0:
        return np.zeros(count, dtype), np.ones(count, dtype=bool) if array.null_count else np.zeros(count, dtype=bool)
    flat = np.frombuffer(buffer, dtype, count=count, offset=array.offset * np.dtype(dtype).itemsize)
    return flat, _nulls(array)
