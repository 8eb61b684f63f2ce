"""Writes documents as Meta-format parquet.

Shapes: T concepts of a document, C their dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from lexalcm.data.sources import EMBEDDING_COLUMN
from lexalcm.data.write_table import CONCEPTS_PER_ROW_GROUP, ParquetTableWriter
from lexalcm.errors import DataError

TEXT_COLUMN: Final = "text_sentences"


@dataclass(frozen=True)
class NewDocument:
    """One row to write."""

    sentences: Sequence[str]

    concepts: np.ndarray
    """``[T, C]``."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Further columns, the same in all documents, say ``id`` and ``lang``."""


def write_documents(
    path: str | Path,
    documents: Iterable[NewDocument],
    *,
    dtype: Literal["float16", "float32"] = "float16",
    concepts_per_row_group: int = CONCEPTS_PER_ROW_GROUP,
    embedding_column: str = EMBEDDING_COLUMN,
    text_column: str = TEXT_COLUMN,
) -> int:
    """Writes one file, aside and then renamed, and returns the number of documents.

    :param concepts_per_row_group: What a reader decodes at a time; large vectors lower it.
    :raises DataError: A document's sentences and vectors do not match, its width or columns are not those of the first
        one, a component overflows ``dtype``, or there is no document.
    """
    count = 0
    writer: ParquetTableWriter | None = None
    try:
        for chunk in _chunks(documents, concepts_per_row_group):
            table = _table(chunk, dtype, embedding_column, text_column)
            if writer is None:
                writer = ParquetTableWriter(
                    path,
                    table.schema,
                    embedding_columns=[embedding_column],
                    concepts_per_row_group=concepts_per_row_group,
                )
            writer.write(table)
            count += len(chunk)
        if writer is None:
            raise DataError(f"There is no document to write to {path}.")
        writer.close()
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    return count


def _chunks(documents: Iterable[NewDocument], num_concepts: int) -> Iterator[list[NewDocument]]:
    """Documents that are made one table, about a row group of them."""
    chunk: list[NewDocument] = []
    size = 0
    first: NewDocument | None = None
    for document in documents:
        first = first or document
        _check(document, first)
        chunk.append(document)
        size += len(document.concepts)
        if size >= num_concepts:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _check(document: NewDocument, first: NewDocument) -> None:
    shape, width = document.concepts.shape, first.concepts.shape[-1]
    if len(shape) != 2 or shape[1] != width or width == 0:
        raise DataError(f"A document's vectors must have the shape [T, {width}], as the first one's, but have {shape}.")
    if len(document.sentences) != shape[0]:
        raise DataError(f"A document has {len(document.sentences)} sentences but {shape[0]} vectors.")
    if document.columns.keys() != first.columns.keys():
        raise DataError(
            f"A document has the columns {sorted(document.columns)}, but the first one has {sorted(first.columns)}."
        )


def _table(group: list[NewDocument], dtype: str, embedding_column: str, text_column: str) -> pa.Table:
    lengths = [len(d.concepts) for d in group]
    width = group[0].concepts.shape[1]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    given = np.concatenate([d.concepts for d in group])
    with np.errstate(over="ignore"):
        components = given.astype(dtype)
    if (np.isinf(components) & np.isfinite(given)).any():
        raise DataError(f"A document has a vector with a component too large for {dtype}.")
    leaf = pa.float16() if dtype == "float16" else pa.float32()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(components.reshape(-1), leaf), width)
    columns: dict[str, pa.Array] = {
        name: pa.array([d.columns[name] for d in group], pa.string()) for name in group[0].columns
    }
    columns[text_column] = pa.ListArray.from_arrays(
        offsets, pa.array([s for d in group for s in d.sentences], pa.string())
    )
    columns[embedding_column] = pa.ListArray.from_arrays(offsets, vectors)
    return pa.table(columns)
