"""Supervised documents: a source and a target, stored in two columns, become one document with the source first.

Shapes: R rows (documents) of a chunk, N vectors (sentences) of both columns, C the vectors' width.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import Sentences, Vectors


def join_vectors(source: Vectors, target: Vectors) -> Vectors:
    """Puts each row's source and target next to each other, in a copy."""
    places = _places(source, target)
    values = np.empty((sum(map(len, places)), source.values.shape[1]), np.result_type(source.values, target.values))
    nulls = np.empty(len(values), dtype=bool)
    for place, part in zip(places, (source, target)):
        values[place], nulls[place] = part.values, part.null_vectors
    lengths = source.lengths + target.lengths
    return Vectors(
        values,
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        null_rows=source.null_rows | target.null_rows,
        null_vectors=nulls,
        widths=None,
    )


def join_sentences(source: Sentences, target: Sentences) -> Sentences:
    """The same for the text."""
    places = _places(source, target)
    both = pa.concat_arrays([part.values.cast(pa.large_string()) for part in (source, target)])
    order = np.empty(len(both), np.int64)
    order[np.concatenate(places)] = np.arange(len(both))
    lengths = source.lengths + target.lengths
    return Sentences(
        both.take(pa.array(order)),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        null_rows=source.null_rows | target.null_rows,
        not_text=np.concatenate([place[part.not_text] for place, part in zip(places, (source, target))]),
    )


def _places(source: Vectors | Sentences, target: Vectors | Sentences) -> tuple[np.ndarray, np.ndarray]:
    """Where the items of each column come to stand, int64 ``[N_source]`` and ``[N_target]``."""
    lengths = source.lengths + target.lengths
    starts = np.cumsum(lengths) - lengths
    return _moved(source, starts), _moved(target, starts + source.lengths)


def _moved(items: Vectors | Sentences, starts: np.ndarray) -> np.ndarray:
    return np.arange(len(items.values)) + np.repeat(starts - items.starts, items.lengths)
