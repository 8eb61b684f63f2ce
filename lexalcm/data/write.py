"""Writes documents as Meta-format parquet.

Shapes: T concepts of a document, C their dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lexalcm.data.sources import EMBEDDING_COLUMN
from lexalcm.errors import DataError

TEXT_COLUMN: Final = "text_sentences"
_MOST_COMPONENTS: Final = 2**28
"""Bound of a row group, far below the 2^31 child values at which 32-bit list offsets overflow."""


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
    concepts_per_row_group: int = 16_384,
    embedding_column: str = EMBEDDING_COLUMN,
    text_column: str = TEXT_COLUMN,
) -> int:
    """Writes one file, aside and then renamed, and returns the number of documents.

    :param concepts_per_row_group: What a reader decodes at a time; large vectors lower it.
    :raises DataError: A document's sentences and vectors do not match, its width or columns are not those of the first
        one, a component overflows ``dtype``, or there is no document.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    writer: pq.ParquetWriter | None = None
    try:
        for group in _groups(documents, concepts_per_row_group):
            table = _table(group, dtype, embedding_column, text_column)
            if writer is None:
                writer = pq.ParquetWriter(
                    aside, table.schema, compression="zstd", use_dictionary=[text_column, *group[0].columns]
                )
            writer.write_table(table, row_group_size=table.num_rows)
            count += len(group)
        if writer is None:
            raise DataError(f"There is no document to write to {path}.")
        writer.close()
        os.replace(aside, path)
    finally:
        if writer is not None:
            writer.close()
        aside.unlink(missing_ok=True)
    return count


def _groups(documents: Iterable[NewDocument], concepts_per_row_group: int) -> Iterator[list[NewDocument]]:
    group: list[NewDocument] = []
    size = 0
    first: NewDocument | None = None
    for document in documents:
        first = first or document
        _check(document, first)
        length, width = document.concepts.shape
        limit = min(concepts_per_row_group, _MOST_COMPONENTS // width)
        if group and size + length > limit:
            yield group
            group, size = [], 0
        group.append(document)
        size += length
    if group:
        yield group


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
