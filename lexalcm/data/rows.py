"""Reads rows of a parquet file: decoded, filtered, and without those that must not be trained on.

Shapes: R documents, N vectors, C their width.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import (
    Sentences,
    Vectors,
    check_text_type,
    decode_sentences,
    decode_vectors,
    embedding_width,
    is_text,
)
from lexalcm.data.discover import DataFile
from lexalcm.data.filters import check_columns, columns_of, filters_on_rows, row_mask
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.order import Unit
from lexalcm.data.pairs import join_sentences, join_vectors
from lexalcm.data.sources import SourceConfig
from lexalcm.data.validate import BadRowCounter, bad_rows, in_column, kinds_of, whole_chunk_has_other_width
from lexalcm.data.watch import Watch
from lexalcm.errors import DataError, near_match
from lexalcm.shown import printable

_LARGE_COMPONENTS: Final = 1 << 25
_STEP_COMPONENTS: Final = 1 << 22
"""Arrow decodes a large row group faster, and in a fraction of the memory, a few thousand vectors at a time."""


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

    skipped: Counter[str]
    """How many of the chunk's documents are bad and left out, by kind."""

    num_source: np.ndarray | None = None
    """int64 ``[R]``: how many concepts at each document's start are its source; ``None`` where there are no targets."""


@dataclass(frozen=True)
class _Side:
    """What one embedding column holds of a chunk: documents, or their sources, or their targets."""

    column: str

    vectors: Vectors

    sentences: Sentences | None


def check_schema(file: DataFile, source: SourceConfig, concept_dim: int | None) -> int | None:
    """Checks a file's columns against a source, and returns the width of vectors as far as it is known then.

    :raises DataError: A column is missing or of another type, or vectors have another width than ``concept_dim``.
    """
    names = file.schema.names
    for column, field in _named_columns(source):
        if column not in names:
            raise DataError(
                f"{file.path} has no column `{column}`, which `{field}` names.{_like(column, names)}\n"
                f"Columns: {', '.join(map(printable, names))}."
            )
    filtered = {c for f in source.filters for c in columns_of(f)} - file.partitions.keys()
    for column in {c for c, _ in _named_columns(source)} | filtered:
        if names.count(column) > 1:
            raise DataError(
                f"{file.path} has {names.count(column)} columns called `{column}`; all but one must be renamed."
            )
    if source.id_column is not None:
        _check_id_type(file.schema.field(source.id_column).type, file=file.path, column=source.id_column)
    check_columns(source.filters, names, file.partitions, file=file.path)
    for embedding_column, text_column in _sides(source):
        width = embedding_width(file.schema.field(embedding_column).type, file=file.path, column=embedding_column)
        if text_column is not None:
            check_text_type(file.schema.field(text_column).type, file=file.path, column=text_column)
        if width is not None and concept_dim is not None and width != concept_dim:
            raise DataError(_other_width(file, embedding_column, width, concept_dim))
        concept_dim = concept_dim if width is None else width
    return concept_dim


def read_unit(
    files: OpenFiles,
    file: DataFile,
    source: SourceConfig,
    unit: Unit,
    *,
    concept_dim: int,
    counter: BadRowCounter,
    watch: Watch | None = None,
) -> Iterator[Rows]:
    """Yields the good rows of a unit, a chunk at a time.

    :raises DataError: The file is damaged, or a bad row is an error.
    """
    filters = filters_on_rows(source.filters, file.partitions)
    filtered = sorted({column for f in filters for column in columns_of(f)} - file.partitions.keys())
    columns = list(dict.fromkeys([*(column for column, _ in _named_columns(source)), *filtered]))
    groups = range(unit.first_group, unit.last_group + 1)
    whole = unit.start == 0 and unit.stop == sum(file.rows[g] for g in groups)
    if len(groups) > 1 or (whole and unit.components <= _LARGE_COMPONENTS):
        table = files.read_groups(file, groups, columns)
    else:
        table = files.read_part(file, unit.first_group, columns, unit.start, unit.stop, step=_rows_at_a_time(unit))
    passed = row_mask(filters, table, partitions=file.partitions, file=file.path) if filters else None
    first_in_file = file.first_rows[unit.first_group] + unit.start
    done = 0
    for batch in table.to_batches():
        count = batch.num_rows
        if count == 0:
            continue
        try:
            sides = [_decode(batch, *columns, concept_dim) for columns in _sides(source)]
        except (pa.ArrowException, ValueError, UnicodeDecodeError) as ex:
            raise DataError(f"{file.path}: row group {unit.first_group} cannot be decoded: {ex}") from None
        for side in sides:
            width = whole_chunk_has_other_width(side.vectors)
            if width is not None:
                raise DataError(_other_width(file, side.column, width, concept_dim))
        keep = np.ones(count, dtype=bool) if passed is None else passed[done : done + count].copy()
        reasons = {row: why for row, why in _bad_rows(sides).items() if keep[row]}
        first = first_in_file + done
        group = bisect_right(file.first_rows, first + min(reasons, default=0)) - 1
        first_in_group = first - file.first_rows[group]
        counter.add(int(keep.sum()), reasons, file=file.path, row_group=group, first_row=first_in_group)
        vectors, sentences = _join(sides)
        if watch is not None:
            ids = None if source.id_column is None else batch.column(source.id_column)
            watch.look(vectors, sentences, ids, file=file.path)
        keep[list(reasons)] = False
        chunk_rows = np.flatnonzero(keep)
        yield Rows(
            vectors.values,
            vectors.starts[chunk_rows],
            vectors.lengths[chunk_rows],
            first + chunk_rows,
            sentences,
            chunk_rows,
            kinds_of(reasons.values()),
            num_source=None if len(sides) == 1 else sides[0].vectors.lengths[chunk_rows],
        )
        done += count


def _rows_at_a_time(unit: Unit) -> int:
    return max(1, (unit.stop - unit.start) * _STEP_COMPONENTS // max(unit.components, 1))


def _decode(batch: pa.RecordBatch, embedding_column: str, text_column: str | None, concept_dim: int) -> _Side:
    sentences = None if text_column is None else decode_sentences(batch.column(text_column))
    return _Side(embedding_column, decode_vectors(batch.column(embedding_column), concept_dim), sentences)


def _bad_rows(sides: list[_Side]) -> dict[int, str]:
    if len(sides) == 1:
        return bad_rows(sides[0].vectors, sides[0].sentences)
    reasons: dict[int, str] = {}
    for side in sides:
        for row, why in bad_rows(side.vectors, side.sentences).items():
            reasons.setdefault(row, in_column(why, side.column))
    return reasons


def _join(sides: list[_Side]) -> tuple[Vectors, Sentences | None]:
    if len(sides) == 1:
        return sides[0].vectors, sides[0].sentences
    source, target = sides
    if source.sentences is None or target.sentences is None:
        return join_vectors(source.vectors, target.vectors), None
    return join_vectors(source.vectors, target.vectors), join_sentences(source.sentences, target.sentences)


def _sides(source: SourceConfig) -> list[tuple[str, str | None]]:
    """Embedding columns with their text columns: one pair, or the source's and the target's."""
    first = (str(source.embedding_column), source.text_column)
    return [first] if source.target_column is None else [first, (source.target_column, source.target_text_column)]


def _named_columns(source: SourceConfig) -> list[tuple[str, str]]:
    """Columns with the field that names each; the embedding column comes first."""
    fields = ("embedding_column", "text_column", "target_column", "target_text_column", "id_column")
    return [(str(getattr(source, field)), field) for field in fields if getattr(source, field) is not None]


def _like(column: str, names: list[str]) -> str:
    other_case = [name for name in names if name.lower() == column.lower()]
    return f' Did you mean "{printable(other_case[0])}"?' if other_case else near_match(column, map(printable, names))


def _check_id_type(kind: pa.DataType, *, file: str, column: str) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (is_text(plain) or pa.types.is_integer(plain)):
        raise DataError(f"{file}: column `{column}` must be of strings or integers, but is {kind}.")


def _other_width(file: DataFile, column: str, found: int, expected: int) -> str:
    return (
        f"{file.path}: column `{column}` holds vectors that are {found} wide, but {expected} is expected.\n"
        f"The files of a dataset, its `concept_dim` and the model's must agree."
    )
