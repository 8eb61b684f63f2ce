"""Parquet files kept open between reads, and places in large row groups that reading goes on from.

A file with many row groups has a footer that takes long to parse; a row group too large for memory can only be decoded
from its start. Both would cost time squared if every read began anew.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from lexalcm.data.decode import num_values
from lexalcm.data.discover import ARROW_ERRORS, DataFile, reason_of
from lexalcm.data.null_vectors import may_be_null_vectors, read_rows
from lexalcm.errors import DataError

_MOST_OPEN: Final = 16
_BUFFER_BYTES: Final = 1 << 20
_SMALL_FILE_BYTES: Final = 1 << 25


class OpenFiles:
    """Reads rows of parquet files from any thread; a handle serves one thread at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: OrderedDict[str, list[pq.ParquetFile]] = OrderedDict()
        self._parts: OrderedDict[tuple[str, int, tuple[str, ...]], _PartReader] = OrderedDict()

    def read_groups(
        self, file: DataFile, groups: Sequence[int], columns: list[str], *, step: int | None = None
    ) -> pa.Table:
        """Reads whole row groups that follow one another.

        :param step: Rows to decode at a time, in chunks of the table: a few megabytes are faster than all at once.
        :raises DataError: The file is damaged.
        """
        try:
            handle = self._take(file)
            if step is None:
                table = handle.read_row_groups(list(groups), columns=columns, use_threads=False)
            else:
                batches = list(
                    handle.iter_batches(batch_size=step, row_groups=list(groups), columns=columns, use_threads=False)
                )
                table = pa.Table.from_batches(batches) if batches else pa.table({})
        except ARROW_ERRORS as ex:
            last = groups[-1]
            rows = (file.first_rows[groups[0]], file.first_rows[last] + file.rows[last])
            table = _read_null_vectors(file, columns, rows, ex)
            if table is None:
                raise damaged(file, groups[0], ex) from None
        else:
            self._give(file, handle)
        expected = sum(file.rows[g] for g in groups)
        if table.num_rows != expected:
            raise damaged(file, groups[0], f"it holds {table.num_rows} rows, but the footer says {expected}")
        if file.embedding_column in columns:
            found = [num_values(chunk) for chunk in table.column(file.embedding_column).chunks]
            _check_values(file, groups, found)
        return table

    def read_part(
        self, file: DataFile, group: int, columns: list[str], start: int, stop: int, *, step: int
    ) -> pa.Table:
        """Reads rows ``start`` to ``stop`` of a row group; fast where an earlier part ended at ``start``.

        :param step: Rows to decode at a time.
        :raises DataError: The file is damaged.
        """
        key = (file.path, group, tuple(columns))
        with self._lock:
            part = self._parts.pop(key, None)
        try:
            if part is None or part.position > start:
                part = _PartReader(open_parquet(file), group, columns, step=step, counted=file.embedding_column)
            table = part.read(start, stop)
        except ARROW_ERRORS as ex:
            before, part = file.first_rows[group], None
            table = _read_null_vectors(file, columns, (before + start, before + stop), ex)
            if table is None:
                raise damaged(file, group, ex) from None
        if table.num_rows != stop - start:
            raise damaged(file, group, f"it ends before row {stop}, but the footer says {file.rows[group]} rows")
        if part is not None and stop == file.rows[group]:
            _check_values(file, [group], part.num_values)
        if part is not None and stop < file.rows[group]:
            with self._lock:
                self._parts[key] = part
                if len(self._parts) > _MOST_OPEN:
                    self._parts.popitem(last=False)
        return table

    def _take(self, file: DataFile) -> pq.ParquetFile:
        with self._lock:
            handles = self._idle.get(file.path)
            if handles:
                return handles.pop()
        return open_parquet(file)

    def _give(self, file: DataFile, handle: pq.ParquetFile) -> None:
        with self._lock:
            self._idle.setdefault(file.path, []).append(handle)
            self._idle.move_to_end(file.path)
            dropped = self._idle.popitem(last=False)[1] if len(self._idle) > _MOST_OPEN else []
        for old in dropped:
            old.close()


class _PartReader:
    """Walks through one row group."""

    def __init__(self, parquet: pq.ParquetFile, group: int, columns: list[str], *, step: int, counted: str) -> None:
        self._counted = counted if counted in columns else None
        self.num_values: list[int | None] = []
        """Of each batch passed so far, in the column that is counted."""
        self._batches: Iterator[pa.RecordBatch] = parquet.iter_batches(
            batch_size=step, row_groups=[group], columns=columns, use_threads=False
        )
        self._rest: pa.RecordBatch | None = None
        self.position = 0

    def read(self, start: int, stop: int) -> pa.Table:
        taken: list[pa.RecordBatch] = []
        while self.position < stop:
            batch = self._rest if self._rest is not None else self._next_batch()
            self._rest = None
            if batch is None:
                break
            wanted = (start if self.position < start else stop) - self.position
            if batch.num_rows > wanted:
                batch, self._rest = batch.slice(0, wanted), batch.slice(wanted)
            if self.position >= start:
                taken.append(batch)
            self.position += batch.num_rows
        return pa.Table.from_batches(taken) if taken else pa.table({})

    def _next_batch(self) -> pa.RecordBatch | None:
        batch = next(self._batches, None)
        if batch is not None:
            self.num_values.append(None if self._counted is None else num_values(batch.column(self._counted)))
        return batch


def _check_values(file: DataFile, groups: Sequence[int], found: list[int | None]) -> None:
    """
    :param found: Values of the pieces that row groups were read in, all of them.
    :raises DataError: They are not as many as the footer says: it is wrong about rows, and each one after them would be
        taken for another.
    """
    told = [file.values[g] for g in groups]
    if None in told or None in found:
        return
    expected, counted = (sum(n for n in numbers if n is not None) for numbers in (told, found))
    if counted != expected:
        rows = sum(file.rows[g] for g in groups)
        raise damaged(file, groups[0], f"its {rows} rows have {counted} values, but the footer says {expected}")


def _read_null_vectors(
    file: DataFile, columns: list[str], rows: tuple[int, int], error: BaseException
) -> pa.Table | None:
    """Reads a range of a file's rows that Arrow gave up on, where it is Arrow's fault."""
    if not may_be_null_vectors(error):
        return None
    with open_parquet(file) as handle:
        return read_rows(file, columns, *rows, handle.schema_arrow)


def open_parquet(file: DataFile) -> pq.ParquetFile:
    """Opens a file. Large local ones are read through a small buffer, so that a column is never in memory whole."""
    if isinstance(file.file_system, LocalFileSystem):
        if os.path.getsize(file.path) != file.size:
            raise DataError(f"{file.path} has changed since the dataset was opened.\nPut it back, or start anew.")
        # The buffer grows to whatever size a page claims, so it is not for files that it is not needed for.
        size = _BUFFER_BYTES if file.size > _SMALL_FILE_BYTES else 0
        return pq.ParquetFile(file.path, buffer_size=size, pre_buffer=False, page_checksum_verification=True)
    handle = file.file_system.open(file.path, "rb")
    return pq.ParquetFile(handle, pre_buffer=True, page_checksum_verification=True)


def damaged(file: DataFile, group: int, cause: BaseException | str) -> DataError:
    """What to tell when a row group cannot be read."""
    reason = reason_of(cause)
    if isinstance(cause, FileNotFoundError):
        return DataError(
            f"{file.path} was there when the dataset was opened, and has gone.\nPut it back, or start anew."
        )
    fix = (
        "The file is encrypted: write it unencrypted"
        if "crypt" in reason.lower()
        else "The file is damaged: write it again"
    )
    return DataError(f"{file.path}: row group {group} cannot be read: {reason}\n{fix}.")
