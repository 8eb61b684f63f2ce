"""Reads rows of a parquet file: decoded, filtered, and without those that must not be trained on.

Shapes: R documents, N vectors, C their width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import (
    Sentences,
    Vectors,
    check_text_type,
    decode_sentences,
    decode_vectors,
    embedding_width,
)
from lexalcm.data.discover import DataFile
from lexalcm.data.filters import check_columns, row_mask
from lexalcm.data.sources import SourceConfig
from lexalcm.data.validate import BadRowCounter, Watch, bad_rows, whole_chunk_has_other_width
from lexalcm.errors import DataError, near_match


@dataclass(frozen=True)
class Rows:
    """Good documents of a chunk."""

    values: np.ndarray
    """``[N, C]`` as stored, those of left-out documents included."""

    starts: np.ndarray
    """int64 ``[R]``."""

    lengths: np.ndarray
    """int64 ``[R]``."""

    rows: np.ndarray
    """int64 ``[R]``: row within the file, from 0."""

    sentences: Sentences | None

    chunk_rows: np.ndarray
    """int64 ``[R]``: row within the chunk, by which ``sentences`` are found."""


def check_schema(file: DataFile, source: SourceConfig, concept_dim: int | None) -> int | None:
    """Checks a file's columns against a source, and returns the width its type fixes, if it does.

    :raises DataError: A column is missing or of another type, or vectors have another width than ``concept_dim``.
    """
    names = file.schema.names
    embedding_column = str(source.embedding_column)
    for column, field in ((embedding_column, "embedding_column"), (source.text_column, "text_column")):
        if column is None:
            continue
        if column not in names:
            raise DataError(
                f"{file.path} has no column `{column}`, which `{field}` names.{near_match(column, names)}\n"
                f"Columns: {', '.join(names)}."
            )
        if names.count(column) > 1:
            raise DataError(f"{file.path} has {names.count(column)} columns called `{column}`; one must be renamed.")
    width = embedding_width(file.schema.field(embedding_column).type, file=file.path, column=embedding_column)
    if source.text_column is not None:
        check_text_type(file.schema.field(source.text_column).type, file=file.path, column=source.text_column)
    check_columns(_file_filters(file, source), names, file=file.path)
    if width is not None and concept_dim is not None and width != concept_dim:
        raise DataError(_other_width(file, embedding_column, width, concept_dim))
    return width


def read_rows(
    file: DataFile,
    source: SourceConfig,
    row_group: int,
    *,
    concept_dim: int,
    counter: BadRowCounter,
    start: int = 0,
    stop: int | None = None,
    watch: Watch | None = None,
) -> Iterator[Rows]:
    """Yields the good rows ``start`` to ``stop`` of a row group, a chunk at a time.

    :raises DataError: The file is damaged, or a bad row is an error.
    """
    filters = _file_filters(file, source)
    embedding_column = str(source.embedding_column)
    wanted = [embedding_column, *([source.text_column] if source.text_column else []), *(f.column for f in filters)]
    try:
        with file.open() as parquet:
            table = parquet.read_row_group(row_group, columns=list(dict.fromkeys(wanted)), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as ex:
        raise DataError(
            f"{file.path}: row group {row_group} cannot be read: {str(ex).splitlines()[0]}\nThe file is damaged; write it again."
        ) from None
    if start or stop is not None:
        table = table.slice(start, None if stop is None else stop - start)
    passed = row_mask(filters, table, file=file.path) if filters else None
    first_in_file = sum(file.rows[:row_group]) + start
    done = 0
    for vectors, sentences in _chunks(table, embedding_column, source.text_column, concept_dim):
        count = len(vectors.lengths)
        width = whole_chunk_has_other_width(vectors)
        if width is not None:
            raise DataError(_other_width(file, embedding_column, width, concept_dim))
        keep = np.ones(count, dtype=bool) if passed is None else passed[done : done + count].copy()
        reasons = {row: why for row, why in bad_rows(vectors, sentences).items() if keep[row]}
        counter.add(int(keep.sum()), reasons, file=file.path, row_group=row_group, first_row=start + done)
        if watch is not None:
            watch.look(vectors, sentences, file=file.path)
        keep[list(reasons)] = False
        chunk_rows = np.flatnonzero(keep)
        yield Rows(
            vectors.values,
            vectors.starts[chunk_rows],
            vectors.lengths[chunk_rows],
            first_in_file + done + chunk_rows,
            sentences,
            chunk_rows,
        )
        done += count


def _chunks(
    table: pa.Table, embedding_column: str, text_column: str | None, width: int
) -> Iterator[tuple[Vectors, Sentences | None]]:
    """Pairs of embeddings and text over the same rows: the chunks of two columns need not end at the same ones."""
    columns = [embedding_column] + ([text_column] if text_column else [])
    for batch in table.select(columns).to_batches():
        if batch.num_rows == 0:
            continue
        sentences = decode_sentences(batch.column(1)) if text_column else None
        yield decode_vectors(batch.column(0), width), sentences


def _file_filters(file: DataFile, source: SourceConfig) -> list:
    return [f for f in source.filters if f.column not in file.partitions]


def _other_width(file: DataFile, column: str, found: int, expected: int) -> str:
    return (
        f"{file.path}: column `{column}` holds vectors that are {found} wide, but {expected} is expected.\n"
        f"The files of a dataset, its `concept_dim` and the model's must agree."
    )
