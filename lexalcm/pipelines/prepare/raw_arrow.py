"""Rows of parquet files and of Arrow's own files, any range of them, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from lexalcm.data.discover import ARROW_ERRORS, reason_of
from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_files import RawFile

_ARROW_MAGIC: Final = b"ARROW1"


class ParquetRows:
    """One parquet file, opened."""

    def __init__(self, handle: Any) -> None:
        self._file = pq.ParquetFile(handle)
        self.schema: pa.Schema = self._file.schema_arrow

    def groups(self) -> list[tuple[int, int]]:
        """Rows and bytes of each row group, from the footer."""
        metadata = self._file.metadata
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        return [(group.num_rows, max(group.total_byte_size, 0)) for group in groups]

    def batches(self, first: int, count: int, columns: Sequence[str], batch_size: int) -> Iterator[pa.Table]:
        """Yields ``count`` rows from ``first`` on, as far as they are there."""
        start, chosen, before = 0, [], 0
        for number, (num_rows, _) in enumerate(self.groups()):
            if start + num_rows <= first:
                before = start + num_rows
            elif start < first + count:
                chosen.append(number)
            start += num_rows
        if chosen:
            batches = self._file.iter_batches(batch_size, row_groups=chosen, columns=list(columns))
            yield from _range(batches, first - before, count, columns)


class StreamRows:
    """One file of Arrow batches, in the stream form that Hugging Face saves, or the one with a footer."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._with_footer = source.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
        self.schema: pa.Schema = self._open().schema

    def groups(self) -> list[tuple[int, int]]:
        """Rows and bytes of each batch; a mapped file is walked over, not read."""
        return [(batch.num_rows, batch.nbytes) for batch in self._batches()]

    def batches(self, first: int, count: int, columns: Sequence[str], batch_size: int) -> Iterator[pa.Table]:
        """Yields ``count`` rows from ``first`` on, as far as they are there."""
        parts = (
            batch.slice(start, batch_size)
            for batch in self._batches()
            for start in range(0, batch.num_rows, batch_size)
        )
        yield from _range(parts, first, count, columns)

    def _open(self) -> Any:
        self._source.seek(0)
        return pa.ipc.open_file(self._source) if self._with_footer else pa.ipc.open_stream(self._source)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        reader = self._open()
        if self._with_footer:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from reader


def _range(batches: Iterator[pa.RecordBatch], skip: int, count: int, columns: Sequence[str]) -> Iterator[pa.Table]:
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        if count <= 0:
            return
        part = batch.slice(skip, count)
        skip, count = 0, count - part.num_rows
        yield pa.Table.from_batches([part]).select(list(columns))


@contextmanager
def open_rows(file: RawFile) -> Iterator[ParquetRows | StreamRows]:
    """Opens a file of rows.

    :raises DataError: It is damaged, also when that is found on reading.
    """
    kind = "parquet" if file.format == "parquet" else "Arrow"
    if file.size == 0:
        raise DataError(f"{file.path} is empty (0 bytes): its writing was cut short. Remove it, or write it again.")
    try:
        if file.format == "arrow" and file.is_local:
            with pa.memory_map(file.path) as mapped:
                yield StreamRows(mapped)
        else:
            with file.file_system.open(file.path, "rb") as handle:
                opened = pa.PythonFile(handle, mode="r")
                yield ParquetRows(opened) if file.format == "parquet" else StreamRows(opened)
    except ARROW_ERRORS as ex:
        raise DataError(
            f"{file.path} is not a complete {kind} file: {reason_of(ex)}\nRemove it, or write it again."
        ) from None
