"""What a parquet file's footer counts, and what follows of it for the memory that its row groups take.

Counts of values are read without Arrow, which ends the process where they are asked of some damaged files.

Shapes: G row groups, L columns as parquet counts them: one for each leaf of a nested column.

Source: Thrift's compact protocol, and ``parquet.thrift`` of the format, whose numbers of fields stand below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

_ROW_GROUPS: Final = 4
_COLUMNS: Final = 1
_META_DATA: Final = 3
_NUM_VALUES: Final = 5

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_NUMBERS: Final = (_I16, _I32, _I64)
_MOST_NESTED: Final = 24
_TAIL: Final = 8


def footer_of(handle: Any, size: int) -> bytes:
    """The serialized footer of an open file whose size is known, and of which Arrow has read the footer before."""
    handle.seek(size - _TAIL)
    length = int.from_bytes(handle.read(_TAIL)[:4], "little")
    handle.seek(size - _TAIL - length)
    return handle.read(length)


def values_by_row_group(footer: bytes, *, most: int) -> list[list[int | None]]:
    """Returns how many values, nulls and empty lists counted in, each column has in each row group, ``[G][L]``; ``None``
    where it is not told, as of an encrypted column.

    :param most: Stop after so many row groups.
    :raises ValueError: The bytes are no footer.
    """
    walk = _Walk(footer)
    try:
        for _ in walk.fields_until(_ROW_GROUPS, _LIST):
            return [walk.row_group() for _ in range(min(walk.structs(), most))]
    except IndexError:
        raise ValueError("its footer ends too early") from None
    return []


def contradiction_in(schema: pq.ParquetSchema, rows: tuple[int, ...], counts: list[list[int | None]]) -> str | None:
    """Says where a column cannot have as many values as the row group has rows; ``None`` if there is no such place."""
    flat = [schema.column(i).max_repetition_level == 0 for i in range(len(schema))]
    for group, (num_rows, found) in enumerate(zip(rows, counts)):
        for is_flat, count in zip(flat, found):
            # Lists have a value a row at least, and none without a row.
            if count is not None and (count != num_rows if is_flat or not num_rows else count < num_rows):
                return f"row group {group} has {num_rows:,} rows, but {count:,} values in one of its columns"
    return None


def values_of_column(
    schema: pq.ParquetSchema, column: str, counts: list[list[int | None]], num_groups: int
) -> tuple[int | None, ...]:
    """The values of a column in each row group; ``None`` where they are not known, or it has several leaves."""
    leaves = [i for i in range(len(schema)) if f"{schema.column(i).path}.".startswith(f"{column}.")]
    if len(leaves) != 1:
        return (None,) * num_groups
    found = [c[leaves[0]] if leaves[0] < len(c) else None for c in counts[:num_groups]]
    return (*found, *[None] * (num_groups - len(found)))


def components_by_group(
    schema: pa.Schema,
    column: str,
    groups: list[pq.RowGroupMetaData],
    values: tuple[int | None, ...],
    *,
    size: int,
) -> tuple[int, ...]:
    """How many components row groups have at most: from their bytes, or what the footer counts where that is more.

    A dictionary, or runs of equal values, put a gigabyte of vectors into a few kilobytes. Bytes are checked against the
    file's size, for writers that fill in less or nothing; there is one component a row at least, so that a footer that
    lies makes reading go in steps, and not in one.

    :param values: Of the column, where they are known; they tell of row groups where they are not.
    :param size: Of the file, in bytes.
    """
    if column not in schema.names:
        return (0,) * len(groups)
    kind = schema.field(schema.names.index(column)).type
    while pa.types.is_nested(kind) and kind.num_fields:
        kind = kind.field(0).type
    width = kind.byte_width if pa.types.is_floating(kind) else 4
    num_rows = max(sum(g.num_rows for g in groups), 1)
    counted = [(value, g.num_rows) for g, value in zip(groups, values) if value is not None]
    a_row = sum(value for value, _ in counted) / max(sum(rows for _, rows in counted), 1)
    return tuple(
        max(
            max(g.total_byte_size, size * g.num_rows // num_rows) // width,
            g.num_rows,
            int(g.num_rows * a_row) if value is None else value,
        )
        for g, value in zip(groups, values)
    )


class _Walk:
    """Goes through a serialized structure once, from its start."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def row_group(self) -> list[int | None]:
        counts: list[int | None] = []
        for _ in self.fields_until(_COLUMNS, _LIST):
            counts = [self._column() for _ in range(self.structs())]
        return counts

    def _column(self) -> int | None:
        count = None
        for _ in self.fields_until(_META_DATA, _STRUCT):
            for _ in self.fields_until(_NUM_VALUES, _I64):
                count = self._number()
        return count

    def fields_until(self, wanted: int, kind: int) -> Iterator[int]:
        """Passes over the fields of a structure to its end, and yields at the one that is wanted, which the caller must
        read."""
        field = 0
        while True:
            head = self._byte()
            if head == 0:
                return
            field = field + (head >> 4) if head >> 4 else self._number()
            if field == wanted and head & 15 == kind:
                yield field
            else:
                self._skip(head & 15, 0)

    def structs(self) -> int:
        kind, count = self._list()
        if kind != _STRUCT and count:
            raise ValueError("its footer is not one of parquet")
        return count

    def _list(self) -> tuple[int, int]:
        head = self._byte()
        return head & 15, self._unsigned() if head >> 4 == 15 else head >> 4

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its footer has a number without an end")

    def _number(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, kind: int, depth: int) -> None:
        if kind in _NUMBERS:
            while self._data[self._at] > 127:
                self._at += 1
            self._at += 1
        elif kind == _BINARY:
            length = self._unsigned()
            self._at += length
        elif kind == _BYTE:
            self._at += 1
        elif kind == _DOUBLE:
            self._at += 8
        elif kind not in (_TRUE, _FALSE):
            self._skip_nested(kind, depth + 1)

    def _skip_nested(self, kind: int, depth: int) -> None:
        if depth > _MOST_NESTED:
            raise ValueError("its footer is nested too deeply")
        if kind == _STRUCT:
            while head := self._byte():
                if not head >> 4:
                    self._number()
                self._skip(head & 15, depth)
        elif kind in (_LIST, _SET):
            item, count = self._list()
            for _ in range(count):
                self._skip_item(item, depth)
        elif kind == _MAP:
            count = self._unsigned()
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._skip_item(kinds >> 4, depth)
                self._skip_item(kinds & 15, depth)
        else:
            raise ValueError("its footer has a field of a kind that is not known")

    def _skip_item(self, kind: int, depth: int) -> None:
        # A truth value takes a byte within a list, and none as a field.
        self._skip(_BYTE if kind in (_TRUE, _FALSE) else kind, depth)
