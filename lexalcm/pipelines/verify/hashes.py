"""Hashes that tell equal documents: by their vectors, by their text, by their ids.

They are fast, not cryptographic: nobody is expected to make two documents that have one in common.

Shapes: R rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128_digest

from lexalcm.data.decode import Sentences, Vectors, is_text


def hashes_together(*hashes: list[bytes]) -> list[bytes]:
    """One hash a row for several parts of it."""
    return hashes[0] if len(hashes) == 1 else [xxh3_128_digest(b"".join(parts)) for parts in zip(*hashes)]


def hashes_of_vectors(vectors: Vectors, rows_R: np.ndarray) -> list[bytes]:
    """16 bytes a row for its vectors as stored.

    :param rows_R: int64 ``[R]``.
    """
    size = vectors.values.itemsize * vectors.values.shape[1]
    starts_R = size * vectors.starts[rows_R]
    return _hashes(_bytes_of(vectors.values), starts_R, starts_R + size * vectors.lengths[rows_R])


def hashes_of_text(sentences: Sentences, rows_R: np.ndarray) -> list[bytes]:
    """16 bytes a row for its sentences.

    :param rows_R: int64 ``[R]``: rows that have some.
    """
    edges, content = _edges_and_bytes(sentences.values)
    lengths = _bytes_of(np.diff(edges))
    starts_R = sentences.starts[rows_R]
    stops_R = starts_R + sentences.lengths[rows_R]
    places = (8 * starts_R, 8 * stops_R, edges[starts_R], edges[stops_R])
    # Lengths too, or ["ab", "c"] and ["a", "bc"] would be one.
    return [
        xxh3_128_digest(b"".join((lengths[a:b], content[c:d]))) for a, b, c, d in zip(*(p.tolist() for p in places))
    ]


def hashes_of_ids(ids: pa.Array, kept_R: np.ndarray, *, source: int) -> tuple[np.ndarray, list[bytes]]:
    """
    :param ids: Strings or integers, which are compared as text, or a dictionary of them.
    :param kept_R: bool ``[R]``: the rows that are asked for.
    :param source: Its number: sources may number their documents alike.
    :returns: int64 indices of those rows that have an id, and 16 bytes for each one.
    :raises pyarrow.ArrowInvalid: An id is not UTF-8.
    """
    plain = ids.dictionary_decode() if pa.types.is_dictionary(ids.type) else ids
    text = plain if is_text(plain.type) else plain.cast(pa.string())
    text.validate(full=True)
    rows = np.flatnonzero(kept_R & text.is_valid().to_numpy(zero_copy_only=False))
    if not len(rows):
        return rows, []
    edges, content = _edges_and_bytes(text)
    return rows, _hashes(content, edges[rows], edges[rows + 1], seed=source)


def _hashes(content: memoryview, starts_R: np.ndarray, stops_R: np.ndarray, *, seed: int = 0) -> list[bytes]:
    return [xxh3_128_digest(content[a:b], seed) for a, b in zip(starts_R.tolist(), stops_R.tolist())]


def _edges_and_bytes(text: pa.Array) -> tuple[np.ndarray, memoryview]:
    """Where each text begins in the bytes of all, int64, and behind the last one where it ends."""
    if pa.types.is_string_view(text.type):
        text = text.cast(pa.large_string())
    _, offsets, data = text.buffers()
    dtype = np.dtype(np.int64 if pa.types.is_large_string(text.type) else np.int32)
    edges = np.frombuffer(offsets, dtype, count=len(text) + 1, offset=dtype.itemsize * text.offset)
    return edges.astype(np.int64, copy=False), memoryview(b"" if data is None else data)


def _bytes_of(values: np.ndarray) -> memoryview:
    return memoryview(values.reshape(-1).view(np.uint8))
