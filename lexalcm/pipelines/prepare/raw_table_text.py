"""Documents of CSV and TSV files, and of plain text files."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from typing import Any, Final

from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_streams import Mark, RawStream, decode

DELIMITERS: Final = {"csv": ",", "tsv": "\t"}


class _Lines:
    """The decoded lines of a stream, and how far they were taken."""

    def __init__(self, stream: RawStream, line: int, offset: int) -> None:
        self._stream = stream
        self.line, self.offset = line, offset

    def __iter__(self) -> Iterator[str]:
        for raw in self._stream:
            text = decode(raw, self._stream, self.line)
            self.line += 1
            self.offset += len(raw)
            yield text


def delimited(stream: RawStream, start: Mark | None) -> Iterator[tuple[Mark, dict[str, Any]]]:
    """Yields the rows below the line of names, quotes and line breaks within them as RFC 4180 has them.

    Every value is text: nothing is guessed, ``007`` stays as it is, and what is missing is empty. A column without a
    name is called ``column_1`` by its number.

    :raises DataError: The file has no names, a row has more or fewer values, or a quote is not closed.
    """
    name = stream.file.name
    # The module's bound of 128 KiB a field would refuse long articles.
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(stream, 1, stream.skip_byte_order_mark())
    columns = _columns(_records(lines, stream), name)
    if columns is None:
        return
    row = 0
    if start is not None:
        stream.go_to(start.offset)
        row, lines = start.row, _Lines(stream, start.line, start.offset)
    for line, offset, values in _records(lines, stream):
        if len(values) != len(columns):
            raise DataError(
                f"{name}:{line} has {len(values)} values, but there are {len(columns)} columns: "
                f"{', '.join(columns)[:200]}.\n"
                f"A value with a separator or a line break within must stand in quotes."
            )
        yield Mark(row, line, offset), dict(zip(columns, values))
        row += 1


def _records(lines: _Lines, stream: RawStream) -> Iterator[tuple[int, int, list[str]]]:
    reader = csv.reader(lines, delimiter=DELIMITERS[stream.file.format], strict=True)
    while True:
        line, offset = lines.line, lines.offset
        try:
            values = next(reader, None)
        except csv.Error as ex:
            where = f"{stream.file.name}:{line}"
            if "new-line character" in str(ex):
                raise DataError(
                    f"{where} has a carriage return outside of quotes: lines must end in line feeds."
                ) from None
            raise DataError(f"{where} is not {stream.file.format}: {ex}. Look at its quotes.") from None
        if values is None:
            return
        if values:  # a blank line has none
            yield line, offset, values


def _columns(records: Iterator[tuple[int, int, list[str]]], name: str) -> list[str] | None:
    line, _, names = next(records, (1, 0, None))
    if names is None:
        return None
    columns = [text.strip() or f"column_{number}" for number, text in enumerate(names, start=1)]
    for column in columns:
        if columns.count(column) > 1:
            raise DataError(f"{name}:{line} has two columns `{column}`. Each needs a name of its own.")
    return columns


def whole_text(stream: RawStream, column: str) -> Iterator[tuple[Mark, dict[str, Any]]]:
    """Yields the one document of a text file, every character kept."""
    stream.skip_byte_order_mark()
    yield Mark(0, 1, 0), {column: decode(stream.read(), stream, 1)}
