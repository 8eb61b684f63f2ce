"""Whole documents put together so that a model's work a call is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


def packed(documents: Iterable[np.ndarray], *, concepts_per_batch: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Groups documents ``[T, C]`` in order; only a document that is longer by itself exceeds the bound.

    :returns: Pairs: the index of the first document, and the documents.
    """
    first, batch, size = 0, [], 0
    for document in documents:
        # An empty document never opens a batch of its own: no model has to run on no concept at all.
        if size and len(document) and size + len(document) > concepts_per_batch:
            yield first, batch
            first, batch, size = first + len(batch), [], 0
        batch.append(document)
        size += len(document)
    if batch:
        yield first, batch
