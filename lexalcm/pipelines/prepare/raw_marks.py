"""Where shards begin: places noted while an input is looked through, in bounded memory.

Rows and bytes are counted over the whole input.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final

import numpy as np

from lexalcm.pipelines.prepare.raw_streams import Mark

_MOST_MARKS: Final = 2**17


class Marks:
    """Places of documents: of every one in small inputs, of every second, fourth ... in larger ones."""

    def __init__(self, most: int = _MOST_MARKS) -> None:
        self._most = most
        self._step = 1
        # Global row, global byte; then row, line and offset in the file, line 0 where there is no going to a place.
        self._fields = tuple(array("q") for _ in range(5))

    def note(self, row: int, byte: int, mark: Mark | None) -> None:
        """Notes the place of a document, or leaves it.

        :param mark: Its place in a file of text.
        """
        if row % self._step:
            return
        values = (row, byte, mark.row, mark.line, mark.offset) if mark else (row, byte, 0, 0, 0)
        for field, value in zip(self._fields, values):
            field.append(value)
        if len(self._fields[0]) > self._most:
            self._thin()

    def note_rows(self, row: int, byte: int, groups: list[tuple[int, int]]) -> None:
        """Notes the starts of row groups, which can be gone to by themselves.

        :param groups: Rows and bytes of each.
        """
        for num_rows, num_bytes in groups:
            if not self._fields[0] or self._fields[0][-1] + self._step <= row:
                for field, value in zip(self._fields, (row, byte, 0, 0, 0)):
                    field.append(value)
            row, byte = row + num_rows, byte + num_bytes
            if len(self._fields[0]) > self._most:
                self._thin()

    def before(self, row: int, first: int) -> Mark | None:
        """The last mark that was noted in a file of text, at ``row`` or before it.

        :param first: Of the file; marks before it are those of others.
        """
        rows = self._fields[0]
        number = bisect_right(rows, row) - 1
        if number < 0 or rows[number] < first or self._fields[3][number] == 0:
            return None
        return Mark(*(field[number] for field in self._fields[2:]))

    def cut(self, num_documents: int, num_bytes: int, num_shards: int) -> list[int]:
        """Returns the row at which each shard begins: about as many bytes each, at least one document each."""
        rows, places = np.append(self._fields[0], num_documents), np.append(self._fields[1], num_bytes)
        wanted = np.arange(num_shards) * (num_bytes / num_shards)
        starts = np.rint(np.interp(wanted, places, rows)).astype(np.int64)
        # Strictly rising, with a document left for each of those that follow.
        numbers = np.arange(num_shards)
        starts = np.maximum.accumulate(starts - numbers) + numbers
        starts = np.minimum(starts, num_documents - num_shards + numbers)
        starts[0] = 0
        return starts.tolist()

    def byte_at(self, row: int, num_documents: int, num_bytes: int) -> int:
        """About how many bytes lie before the document of a number."""
        rows = self._fields[0]
        number = bisect_right(rows, row)
        if row in (0, num_documents):
            return num_bytes if row else 0
        row_0, byte_0 = rows[number - 1], self._fields[1][number - 1]
        if number == len(rows):
            row_1, byte_1 = num_documents, num_bytes
        else:
            row_1, byte_1 = rows[number], self._fields[1][number]
        return byte_0 + (row - row_0) * (byte_1 - byte_0) // (row_1 - row_0)

    def _thin(self) -> None:
        self._step *= 2
        self._fields = tuple(field[::2] for field in self._fields)
