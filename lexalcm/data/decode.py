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
    kind = _storage_type(kind)
    inner = _storage_type(kind.value_type) if _is_list(kind) else None
    leaf = _storage_type(inner.value_type) if inner is not None and _is_list(inner) else None
    if leaf not in _FLOATS:
        hint = ""
        if pa.types.is_fixed_size_list(kind) and inner in _FLOATS:
            hint = " It holds one vector a document, but a document is a list of sentences' vectors."
        elif inner == pa.null() or leaf == pa.null():
            hint = " All its rows are empty, so its type was never known."
        raise DataError(
            f"{file}: column `{column}` must be a list of vectors of halffloat, float or double, but is "
            f"{_shortened(kind)}.{hint}"
        )
    assert inner is not None
    if not pa.types.is_fixed_size_list(inner):
        return None
    if inner.list_size == 0:
        raise DataError(f"{file}: column `{column}` must be a list of vectors, but its type says that they are 0 wide.")
    return inner.list_size


def decode_vectors(chunk: pa.Array, width: int) -> Vectors:
    """Decodes a chunk of an embedding column whose type :func:`embedding_width` has accepted.

    ``values`` is a view of Arrow's own memory where every vector has ``width`` components.
    """
    chunk = _storage(chunk)
    offsets, children = _lists(chunk)
    first, last = int(offsets[0]), int(offsets[-1])
    vectors = _storage(children.slice(first, last - first))
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    inner, components = _lists(vectors)
    low, high = int(inner[0]), int(inner[-1])
    values, null_leaves = _leaf(_storage(components.slice(low, high - low)))
    null_vectors = _nulls(vectors)
    widths: np.ndarray | None = np.diff(inner)
    assert widths is not None
    if null_leaves is not None:
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(null_leaves)])
        null_vectors = null_vectors | (before[inner[1:] - low] > before[inner[:-1] - low])
    if pa.types.is_fixed_size_list(vectors.type) and vectors.type.list_size == width:
        return Vectors(values.reshape(-1, width), starts, lengths, _nulls(chunk), null_vectors, None)
    if (widths == width).all():
        return Vectors(values.reshape(-1, width), starts, lengths, _nulls(chunk), null_vectors, widths)
    matrix = np.zeros((len(widths), width), values.dtype)
    fits = np.flatnonzero(widths == width)
    matrix[fits] = values[(inner[:-1] - low)[fits, None] + np.arange(width)]
    return Vectors(matrix, starts, lengths, _nulls(chunk), null_vectors, widths)


def num_values(chunk: pa.Array) -> int | None:
    """How many values a chunk of a column has as parquet counts them: a list that is null or empty is one too; ``None``
    for types that are not lists of lists of plain values."""
    of_each = _values_of_each(chunk)
    return None if of_each is None else int(of_each.sum())


def _values_of_each(array: pa.Array) -> np.ndarray | None:
    """int64, of each element of an array of lists."""
    array = _storage(array)
    if not _is_list(array.type):
        return None
    offsets, children = _lists(array)
    first, last = int(offsets[0]), int(offsets[-1])
    inner = _storage(children.slice(first, last - first))
    counts = np.diff(offsets)
    if pa.types.is_nested(inner.type):
        of_children = _values_of_each(inner)
        if of_children is None:
            return None
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(of_children)])
        counts = before[offsets[1:] - first] - before[offsets[:-1] - first]
    return np.where(_nulls(array), 1, np.maximum(counts, 1))


@dataclass(frozen=True)
class Sentences:
    """The text of a chunk of documents."""

    values: pa.Array
    """All sentences, in order: strings, or large strings."""

    starts: np.ndarray
    """int64 ``[R]``: the first sentence of each document."""

    lengths: np.ndarray
    """int64 ``[R]``."""

    null_rows: np.ndarray
    """bool ``[R]``: the whole list is null."""

    not_text: np.ndarray
    """int64: the sentences whose bytes are not UTF-8."""

    def of(self, row: int) -> list[str]:
        """The sentences of one document."""
        return self.values.slice(int(self.starts[row]), int(self.lengths[row])).to_pylist()


def check_text_type(kind: pa.DataType, *, file: str, column: str) -> None:
    """:raises DataError: The type is not a list of texts."""
    kind = _storage_type(kind)
    inner = _storage_type(kind.value_type) if _is_list(kind) else None
    if inner is not None and pa.types.is_dictionary(inner):
        inner = inner.value_type
    if inner is None or not is_text(inner):
        hint = " It holds one text a document, but a document is a list of sentences." if is_text(kind) else ""
        raise DataError(f"{file}: column `{column}` must be a list of strings, but is {_shortened(kind)}.{hint}")


def decode_sentences(chunk: pa.Array) -> Sentences:
    """Decodes a chunk of a text column whose type :func:`check_text_type` has accepted."""
    chunk = _storage(chunk)
    offsets, children = _lists(chunk)
    first, last = int(offsets[0]), int(offsets[-1])
    values = _storage(children.slice(first, last - first))
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return Sentences(values, offsets[:-1] - first, np.diff(offsets), _nulls(chunk), _not_utf8(values))


def is_text(kind: pa.DataType) -> bool:
    """Tells whether a type is one of Arrow's strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _not_utf8(values: pa.Array) -> np.ndarray:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        raw = values.cast(pa.large_binary())
        return np.asarray([i for i, value in enumerate(raw) if not _decodes(value.as_py())], dtype=np.int64)
    return np.zeros(0, np.int64)


def _decodes(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _storage_type(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _lists(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Offsets, int64, of an array of lists into its children, which begin where the unsliced array's do."""
    if pa.types.is_fixed_size_list(array.type):
        return (array.offset + np.arange(len(array) + 1, dtype=np.int64)) * array.type.list_size, array.values
    return array.offsets.to_numpy().astype(np.int64, copy=False), array.values


def _nulls(array: pa.Array) -> np.ndarray:
    if array.null_count == 0:
        return np.zeros(len(array), dtype=bool)
    return array.is_null().to_numpy(zero_copy_only=False)


def _leaf(array: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """Components as a flat view, and which of them are null, ``None`` if none is."""
    dtype = np.dtype(_FLOATS[array.type])
    nulls = _nulls(array) if array.null_count else None
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros(len(array), dtype), nulls
    return np.frombuffer(buffer, dtype, count=len(array), offset=array.offset * dtype.itemsize), nulls


def _shortened(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 120 else f"{text[:117]}..."
