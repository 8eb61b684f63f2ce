"""Reads the rows of a file a few megabytes at a time, and looks at them; what cannot be read is passed over.

Shapes: R documents of a chunk.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import decode_sentences, decode_vectors
from lexalcm.data.discover import DataFile
from lexalcm.data.filters import filters_on_rows, row_mask
from lexalcm.data.open_files import OpenFiles
from lexalcm.errors import DataError
from lexalcm.pipelines.verify.chunk import DecodedSide, Hashes, look_at
from lexalcm.pipelines.verify.columns import CheckedFile
from lexalcm.pipelines.verify.files import without_path
from lexalcm.pipelines.verify.hashes import hashes_of_ids
from lexalcm.pipelines.verify.problems import Problem
from lexalcm.pipelines.verify.repeats import records

_STEP_COMPONENTS: Final = 1 << 21
"""What is decoded at a time: 8 MiB of float32. Larger pieces are not faster."""


@dataclass
class Looked:
    """What a look at some rows has come to."""

    problems: list[Problem] = field(default_factory=list)

    num_passed: int = 0
    """Rows that are done with, whatever came of them."""

    num_rows: int = 0
    """Whose vectors were read, and that filters let pass."""

    num_filtered: int = 0

    num_sentences: int = 0

    num_empty: int = 0

    num_single: int = 0
    """Of one sentence."""

    longest: int = 0
    """Sentences of the longest document."""

    documents: list[np.ndarray] = field(default_factory=list)
    """Records by the content of vectors, then of text, then of ids."""

    texts: list[np.ndarray] = field(default_factory=list)

    ids: list[np.ndarray] = field(default_factory=list)


def row_groups_together(file: DataFile) -> Iterator[range]:
    """Row groups that are read in one call: many small ones, or one."""
    start = size = 0
    for group, components in enumerate(file.components):
        components = max(components, file.rows[group])
        if group > start and size + components > _STEP_COMPONENTS:
            yield range(start, group)
            start, size = group, 0
        size += components
    if len(file.rows) > start:
        yield range(start, len(file.rows))


def look_at_groups(
    checked: CheckedFile, groups: range, files: OpenFiles, *, split: int, max_length: int
) -> Iterator[Looked]:
    """Reads row groups that follow one another, checks every row of them, and yields what came of each piece.

    :param split: The number of the file's split, -1 if it has none.
    """
    return _Look(checked, files, split, max_length).at(groups)


class _Look:
    def __init__(self, checked: CheckedFile, files: OpenFiles, split: int, max_length: int) -> None:
        self._checked = checked
        self._file = checked.file
        self._files = files
        self._split = split
        self._max_length = max_length
        self._looked = Looked()

    def at(self, groups: range) -> Iterator[Looked]:
        names = self._file.schema.names
        # Other columns are read too, to see that they can be: the same name twice is told elsewhere.
        columns = list(self._checked.columns) + [
            n for n in dict.fromkeys(names) if n not in self._checked.columns and names.count(n) == 1
        ]
        if len(groups) > 1:
            try:
                table = self._files.read_groups(self._file, groups, columns)
            except DataError:
                # One of them is damaged: which one shows when they are read one by one.
                pass
            else:
                self._look_at_table(table, self._file.first_rows[groups[0]])
                yield self._take(sum(self._file.rows[g] for g in groups))
                return
        for group in groups:
            yield from self._look_at_group(group, columns)

    def _take(self, num_passed: int) -> Looked:
        looked, self._looked = self._looked, Looked()
        looked.num_passed = num_passed
        return looked

    def _look_at_group(self, group: int, columns: list[str]) -> Iterator[Looked]:
        """Goes on without the columns that turn out to be damaged."""
        start, rows = 0, self._file.rows[group]
        while start < rows:
            try:
                for first, table in self._pieces(group, columns, start):
                    self._look_at_table(table, self._file.first_rows[group] + first)
                    start = first + table.num_rows
                    yield self._take(table.num_rows)
            except _PieceError as failed:
                bad = [c for c in columns if len(columns) == 1 or not self._is_readable(group, c, start)]
                self._tell_unreadable(group, bad, failed.reason)
                columns = [c for c in columns if c not in bad]
                if not bad or not any(c in self._checked.columns for c in columns):
                    yield self._take(rows - start)
                    return

    def _pieces(self, group: int, columns: Sequence[str], start: int) -> Iterator[tuple[int, pa.Table]]:
        rows, components = self._file.rows[group], self._file.components[group]
        step = max(1, rows * _STEP_COMPONENTS // max(components, 1))
        while start < rows:
            stop = min(start + step, rows)
            try:
                if start == 0 and stop == rows:
                    table = self._files.read_groups(self._file, [group], list(columns))
                else:
                    table = self._files.read_part(self._file, group, list(columns), start, stop, step=step)
            except DataError as error:
                raise _PieceError(without_path(str(error), self._file.path)) from None
            yield start, table
            start = stop

    def _is_readable(self, group: int, column: str, start: int) -> bool:
        try:
            for _ in self._pieces(group, [column], start):
                pass
        except _PieceError:
            return False
        return True

    def _tell_unreadable(self, group: int, columns: list[str], reason: str) -> None:
        reason = reason.removeprefix(f"row group {group} ")
        is_damage = any(c in self._checked.columns for c in columns) or "not implemented" not in reason.lower()
        kind = "unreadable_rows" if is_damage else "unreadable_column"
        which = f"column {', '.join(f'`{c}`' for c in columns)}: " if columns else ""
        self._tell(kind, group, f"{which}{reason}", columns[0] if columns else None)

    def _tell(self, kind: str, group: int, reason: str, column: str | None = None) -> None:
        source, file = self._checked.source.name, self._file.relative
        self._looked.problems.append(
            Problem(kind=kind, source=source, file=file, row_group=group, column=column, reason=reason)
        )

    def _look_at_table(self, table: pa.Table, first: int) -> None:
        """
        :param first: The row of the file that the table begins with.
        """
        kept = self._passed(table, first)
        done = 0
        for batch in table.to_batches():
            if batch.num_rows:
                part = kept[done : done + batch.num_rows]
                self._look_at_batch(batch, part, first + done)
                done += batch.num_rows

    def _passed(self, table: pa.Table, first: int) -> np.ndarray:
        filters = filters_on_rows(self._checked.source.filters, self._file.partitions)
        if filters and self._checked.can_filter:
            try:
                return row_mask(filters, table, partitions=self._file.partitions, file=self._file.path)
            except (DataError, KeyError) as error:
                self._tell("filter", self._group_of(first), without_path(str(error), self._file.path))
        return np.ones(table.num_rows, dtype=bool)

    def _group_of(self, row: int) -> int:
        # Empty row groups begin where the next one does; the last that begins there is meant.
        return bisect_right(self._file.first_rows, row) - 1

    def _look_at_batch(self, batch: pa.RecordBatch, kept: np.ndarray, first: int) -> None:
        try:
            sides = self._decode(batch)
            found, hashes = look_at(sides, kept, max_length=self._max_length)
        except (pa.ArrowException, ValueError) as error:
            self._tell("unreadable_rows", self._group_of(first), f"cannot be decoded: {error}")
            return
        for item in found:
            row = first + item.row
            group = self._group_of(row)
            self._looked.problems.append(
                Problem(
                    kind=item.kind,
                    reason=item.reason,
                    source=self._checked.source.name,
                    file=self._file.relative,
                    row_group=group,
                    row_in_group=row - self._file.first_rows[group],
                    row_in_file=row,
                    sentence=item.sentence,
                    column=item.column,
                )
            )
        self._count(sides, kept)
        self._remember(batch, hashes, kept, first)

    def _decode(self, batch: pa.RecordBatch) -> list[DecodedSide]:
        names = batch.schema.names
        sides = []
        for side in self._checked.sides:
            vectors = sentences = None
            if side.embedding_column in names:
                vectors = decode_vectors(batch.column(side.embedding_column), side.width)
            if side.text_column in names:
                sentences = decode_sentences(batch.column(side.text_column))
            sides.append(DecodedSide(side.embedding_column, side.text_column, vectors, sentences))
        return sides

    def _count(self, sides: list[DecodedSide], kept: np.ndarray) -> None:
        self._looked.num_filtered += len(kept) - int(kept.sum())
        known = [side.vectors for side in sides if side.vectors is not None]
        if len(known) < len(sides):
            return
        lengths = np.sum([vectors.lengths for vectors in known], axis=0)[kept]
        self._looked.num_rows += len(lengths)
        self._looked.num_sentences += int(lengths.sum())
        self._looked.num_empty += int((lengths == 0).sum())
        self._looked.num_single += int((lengths == 1).sum())
        self._looked.longest = max(self._looked.longest, int(lengths.max(initial=0)))

    def _remember(self, batch: pa.RecordBatch, hashes: Hashes | None, kept: np.ndarray, first: int) -> None:
        index, split = self._checked.index, self._split
        if hashes is not None and len(hashes.rows):
            rows = first + hashes.rows
            documents = records(hashes.vectors, rows, file=index, split=split)
            self._looked.documents.append(documents)
            if hashes.texts is not None:
                other = documents["hash"][:, 0]
                self._looked.texts.append(records(hashes.texts, rows, file=index, split=split, other=other))
        if self._checked.id_column in batch.schema.names:
            try:
                rows, of_ids = hashes_of_ids(
                    batch.column(self._checked.id_column), kept, source=self._checked.source_index
                )
            except pa.ArrowInvalid:
                self._tell("unreadable_column", self._group_of(first), "an id is not UTF-8")
                return
            if len(rows):
                self._looked.ids.append(records(of_ids, first + rows, file=index, split=split))


class _PieceError(Exception):
    @property
    def reason(self) -> str:
        return str(self)
