"""Parquet files whose footers and page headers say what is not so: Thrift's compact protocol, read, changed and written.

A structure is a mapping of field numbers to (kind, value), a list is [kind of its items, *items]; numbers of fields are
those of ``parquet.thrift``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOOLS, BYTE, NUMBERS, DOUBLE, BINARY, LISTS, STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12

# FileMetaData, RowGroup, ColumnChunk, ColumnMetaData, PageHeader
NUM_ROWS, ROW_GROUPS = 3, 4
COLUMNS, BYTE_SIZE, GROUP_ROWS = 1, 2, 3
META_DATA = 3
CODEC, NUM_VALUES, UNCOMPRESSED, COMPRESSED, DATA_PAGE, DICTIONARY_PAGE, STATISTICS = 4, 5, 6, 7, 9, 11, 12
PAGE_UNCOMPRESSED, PAGE_COMPRESSED, DATA_HEADER, DATA_HEADER_V2 = 2, 3, 5, 8


def change_footer(path: Path, change: Callable[[dict[int, Any]], None]) -> None:
    """Rewrites a file with another footer."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    tree = read_struct(io.BytesIO(content[-8 - length : -8]))
    change(tree)
    footer = written(tree)
    path.write_bytes(content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def change_page(path: Path, group: int, column: int, change: Callable[[dict[int, Any]], None]) -> None:
    """Rewrites a file with another header of the first data page of a column chunk, and moves what lies behind."""
    content = path.read_bytes()
    footer = read_struct(io.BytesIO(content[-8 - int.from_bytes(content[-8:-4], "little") : -8]))
    start = chunk(footer, group, column)[DATA_PAGE][1]
    stream = io.BytesIO(content[start:])
    header = read_struct(stream)
    end = start + stream.tell()
    change(header)
    new = written(header)
    path.write_bytes(content[:start] + new + content[end:])
    grown = len(new) - (end - start)

    def move(tree: dict[int, Any]) -> None:
        for row_group in tree[ROW_GROUPS][1][1:]:
            for one in row_group[COLUMNS][1][1:]:
                fields = one[META_DATA][1]
                for name in (DATA_PAGE, DICTIONARY_PAGE):
                    if name in fields and fields[name][1] > start:
                        fields[name] = (6, fields[name][1] + grown)
        fields = chunk(tree, group, column)
        fields[COMPRESSED] = (6, fields[COMPRESSED][1] + grown)

    change_footer(path, move)


def repeat_pages(path: Path, times: int) -> None:
    """Makes the only column chunk of a file as many times as long: Arrow would need all of it in memory to write it."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    fields = chunk(read_struct(io.BytesIO(content[-8 - length : -8])), 0, 0)
    start = fields[DATA_PAGE][1]
    end = fields.get(DICTIONARY_PAGE, fields[DATA_PAGE])[1] + fields[COMPRESSED][1]
    path.write_bytes(content[:end] + content[start:end] * (times - 1) + content[end:])

    def lengthen(tree: dict[int, Any]) -> None:
        group, fields = row_group(tree, 0), chunk(tree, 0, 0)
        for place, name in ((tree, NUM_ROWS), (group, GROUP_ROWS), (fields, NUM_VALUES), (group, BYTE_SIZE)):
            place[name] = (place[name][0], place[name][1] * times)
        for name in (COMPRESSED, UNCOMPRESSED):
            fields[name] = (fields[name][0], fields[name][1] + (end - start) * (times - 1))

    change_footer(path, lengthen)


def row_group(footer: dict[int, Any], group: int) -> dict[int, Any]:
    return footer[ROW_GROUPS][1][1 + group]


def chunk(footer: dict[int, Any], group: int, column: int) -> dict[int, Any]:
    """The ``ColumnMetaData`` of a leaf column in a row group."""
    return row_group(footer, group)[COLUMNS][1][1 + column][META_DATA][1]


def read_struct(stream: io.BytesIO) -> dict[int, Any]:
    fields: dict[int, Any] = {}
    number = 0
    while head := stream.read(1)[0]:
        number = number + (head >> 4) if head >> 4 else _number(stream)
        fields[number] = (head & 15, _read(stream, head & 15))
    return fields


def written(fields: dict[int, Any]) -> bytes:
    out = bytearray()
    for number, (kind, value) in sorted(fields.items()):
        out += bytes([kind]) + _signed(number) + _written(kind, value)
    return bytes(out) + b"\0"


def _read(stream: io.BytesIO, kind: int) -> Any:
    if kind in NUMBERS:
        return _number(stream)
    if kind == BINARY:
        return stream.read(_unsigned(stream))
    if kind == STRUCT:
        return read_struct(stream)
    if kind in LISTS:
        head = stream.read(1)[0]
        count = _unsigned(stream) if head >> 4 == 15 else head >> 4
        item = head & 15
        return [item, *(stream.read(1) if item in BOOLS else _read(stream, item) for _ in range(count))]
    assert kind in (*BOOLS, BYTE, DOUBLE), kind
    return stream.read({BYTE: 1, DOUBLE: 8}.get(kind, 0))


def _written(kind: int, value: Any) -> bytes:
    if kind in NUMBERS:
        return _signed(value)
    if kind == BINARY:
        return _varint(len(value)) + value
    if kind == STRUCT:
        return written(value)
    if kind in LISTS:
        item, items = value[0], value[1:]
        body = b"".join(x if item in BOOLS else _written(item, x) for x in items)
        return bytes([0xF0 | item]) + _varint(len(items)) + body
    return value


def _unsigned(stream: io.BytesIO) -> int:
    value = shift = 0
    while True:
        byte = stream.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            return value
        shift += 7


def _number(stream: io.BytesIO) -> int:
    value = _unsigned(stream)
    return (value >> 1) ^ -(value & 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _signed(value: int) -> bytes:
    return _varint((value << 1) ^ (value >> 63) if value >= 0 else ((-value) << 1) - 1)
