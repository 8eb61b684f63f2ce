"""Converts a few row groups of a file, or a part of one: checked, stored anew, and divided by split.

Shapes: R rows (documents) of a chunk, N vectors, C their width.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import Sentences, Vectors, decode_sentences, decode_vectors
from lexalcm.data.discover import DataFile
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.order import Unit
from lexalcm.data.validate import bad_rows, in_column, whole_chunk_has_other_width
from lexalcm.errors import DataError
from lexalcm.pipelines.convert.columns import take_rows, take_vectors
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.plan import FileJob, Plan
from lexalcm.pipelines.convert.result import BadRow, DamagedFileError, bad_row_error
from lexalcm.pipelines.convert.splits import folder_of, known_split, splits_by_column, splits_by_hash

_STEP_COMPONENTS: Final = 1 << 21
_LARGE_COMPONENTS: Final = 1 << 25


@dataclass(frozen=True)
class Part:
    """A unit converted."""

    tables: dict[str, list[pa.Table]]
    """By split."""

    bad: list[BadRow]

    num_rows: int


def is_whole(unit: Unit, file: DataFile) -> bool:
    """Tells whether a unit is made of whole row groups."""
    return unit.start == 0 and unit.stop == sum(file.rows[unit.first_group : unit.last_group + 1])


def convert_unit(files: OpenFiles, job: FileJob, plan: Plan, config: ConvertConfig, unit: Unit) -> Part:
    """
    :raises DamagedFileError: The file cannot be read.
    :raises DataError: A bad row is an error, a value does not fit the type asked for, or a row is in no split.
    """
    # Apart from the other columns, because Arrow before 26 cannot read null vectors and another reader must.
    vital = [name for side in job.sides for name in (side.embedding, side.text) if name is not None]
    others = [name for name in job.file.schema.names if name not in vital]
    table = _read(files, job.file, unit, vital)
    rest = _read(files, job.file, unit, others) if others else pa.table({})
    part = Part({}, [], table.num_rows)
    done = job.file.first_rows[unit.first_group] + unit.start
    first = done
    for batch in table.to_batches():
        if batch.num_rows:
            _convert_batch(job, plan, config, batch, rest.slice(done - first, batch.num_rows), done, part)
            done += batch.num_rows
    return part


def _read(files: OpenFiles, file: DataFile, unit: Unit, columns: list[str]) -> pa.Table:
    groups = range(unit.first_group, unit.last_group + 1)
    step = max(1, (unit.stop - unit.start) * _STEP_COMPONENTS // max(unit.components, 1))
    try:
        if len(groups) > 1 or (is_whole(unit, file) and unit.components <= _LARGE_COMPONENTS):
            return files.read_groups(file, groups, columns, step=step)
        return files.read_part(file, unit.first_group, columns, unit.start, unit.stop, step=step)
    except DataError as ex:
        raise DamagedFileError(str(ex)) from None


def _convert_batch(
    job: FileJob, plan: Plan, config: ConvertConfig, batch: pa.RecordBatch, rest: pa.Table, first: int, part: Part
) -> None:
    vectors: dict[str, Vectors] = {}
    sentences: dict[str, Sentences | None] = {}
    reasons: dict[int, str] = {}
    for side in job.sides:
        try:
            vectors[side.embedding] = decode_vectors(batch.column(side.embedding), plan.concept_dim)
            sentences[side.embedding] = None if side.text is None else decode_sentences(batch.column(side.text))
        except (pa.ArrowException, ValueError, UnicodeDecodeError) as ex:
            raise DamagedFileError(f"{_place(job.file, first)} cannot be decoded: {ex}") from None
        width = whole_chunk_has_other_width(vectors[side.embedding])
        if width is not None:
            raise DataError(
                f"{_place(job.file, first)}: column `{side.embedding}` holds vectors that are {width} wide, but "
                f"{plan.concept_dim} is expected."
            )
        for row, why in bad_rows(vectors[side.embedding], sentences[side.embedding]).items():
            reasons.setdefault(row, why if len(job.sides) == 1 else in_column(why, side.embedding))
    if reasons and config.repair == "fail":
        row, why = min(reasons.items())
        raise bad_row_error(job.file.path, *_group_and_row(job.file, first + row), why)
    part.bad.extend(BadRow(*_group_and_row(job.file, first + row), why) for row, why in sorted(reasons.items()))
    good_R = np.ones(batch.num_rows, dtype=bool)
    good_R[list(reasons)] = False
    columns = _stored_columns(job, batch, rest)
    main = job.sides[0].embedding
    masks = _rows_by_split(job, plan, config, columns, vectors[main], sentences[main], good_R, first)
    for split, keep_R in masks.items():
        table = _table(job, columns, vectors, keep_R, first, config)
        part.tables.setdefault(split, []).append(table)


def _stored_columns(job: FileJob, batch: pa.RecordBatch, rest: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns that stay as they are, and the partitions."""
    columns = {name: rest.column(name) for name in rest.column_names}
    columns |= {s.text: pa.chunked_array([batch.column(s.text)]) for s in job.sides if s.text is not None}
    for name, value in job.partitions.items():
        columns[name] = pa.chunked_array([pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)])
    return columns


def _rows_by_split(
    job: FileJob,
    plan: Plan,
    config: ConvertConfig,
    columns: dict[str, pa.ChunkedArray],
    vectors: Vectors,
    sentences: Sentences | None,
    good_R: np.ndarray,
    first: int,
) -> dict[str, np.ndarray]:
    """Which of the good rows go to which split, as bool ``[R]``."""
    rows = np.flatnonzero(good_R)
    if not len(rows):
        return {}
    if job.split is not None:
        return {job.split: good_R}
    names = None if plan.rule.column is None else columns[plan.rule.column]
    try:
        if plan.rule.kind == "column" and names is not None:
            found = splits_by_column(names, rows)
        else:
            found = splits_by_hash(plan.rule, names, vectors, sentences, rows)
    except UnicodeDecodeError:
        raise DataError(
            f"{job.file.path}: column `{plan.rule.column}` holds text that is not UTF-8: no split can be told by it."
        ) from None
    masks: dict[str, np.ndarray] = {}
    by_name: dict[str, np.ndarray] = {}
    for row, name in found:
        if name is None:
            raise DataError(
                f"{_place(job.file, first + row)}: column `{plan.rule.column}` is null, so it is in no split."
            )
        if name not in by_name:
            folder_of(name, config.layout, where=_place(job.file, first + row))
            split = known_split(name, config.layout)
            by_name[name] = masks.setdefault(split, np.zeros(len(good_R), dtype=bool))
        by_name[name][row] = True
    return masks


def _table(
    job: FileJob,
    columns: dict[str, pa.ChunkedArray],
    vectors: dict[str, Vectors],
    keep_R: np.ndarray,
    first: int,
    config: ConvertConfig,
) -> pa.Table:
    taken: list[pa.ChunkedArray | pa.Array] = []
    for column in job.schema:
        if column.name not in vectors:
            taken.append(take_rows(columns[column.name], keep_R))
            continue
        stored, unfit = take_vectors(vectors[column.name], keep_R, column.type)
        if len(unfit):
            row = int(np.flatnonzero(keep_R)[unfit[0]])
            raise DataError(
                f"{_place(job.file, first + row)}: a vector in column `{column.name}` does not fit "
                f"{column.type.value_type.value_type}: it overflows, or becomes zero.\n"
                f"Take --dtype float32."
            )
        taken.append(stored)
    return pa.Table.from_arrays(taken, schema=job.schema)


def _group_and_row(file: DataFile, row: int) -> tuple[int, int]:
    group = bisect_right(file.first_rows, row) - 1
    return group, row - file.first_rows[group]


def _place(file: DataFile, row: int) -> str:
    group, row_in_group = _group_and_row(file, row)
    return f"{file.path}: row group {group}, row {row_in_group}"
