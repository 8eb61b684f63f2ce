"""The width of vectors where no type tells it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from lexalcm.data.decode import decode_vectors
from lexalcm.data.discover import DataFile
from lexalcm.data.open_files import OpenFiles
from lexalcm.errors import DataError

_PEEKED_ROWS: Final = 256


def peek_width(files: Iterable[tuple[DataFile, str]]) -> int:
    """The width that most vectors have at the start of the first row group with any.

    :param files: And the column of each.
    :raises DataError: There is no vector in any.
    """
    reader = OpenFiles()
    for file, column in files:
        widths = first_widths(file, column, reader)
        if len(widths):
            return int(np.bincount(widths).argmax())
    raise DataError("No document of the dataset has an embedding, so the width of a vector is not known.")


def first_widths(file: DataFile, column: str, reader: OpenFiles) -> np.ndarray:
    """The widths of the vectors at the start of the first row group with any, int64; empty where there are none."""
    for group, rows in enumerate(file.rows):
        if rows == 0:
            continue
        table = reader.read_part(file, group, [column], 0, min(rows, _PEEKED_ROWS), step=_PEEKED_ROWS)
        chunks = [decode_vectors(chunk, 1) for chunk in table.column(column).chunks]
        widths = np.concatenate([c.widths[~c.null_vectors] for c in chunks if c.widths is not None])
        widths = widths[widths > 0]
        if len(widths):
            return widths
    return np.zeros(0, np.int64)
