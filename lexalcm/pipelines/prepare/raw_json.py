"""Documents of JSON: an object a line, or an array of objects that need not fit into memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_json_scan import JsonScanner
from lexalcm.pipelines.prepare.raw_streams import Mark, RawStream, decode

_HALF_CHARACTER: Final = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN: Final = 60
_DATA: Final = "data"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has `{next(n for n in names if names.count(n) > 1)}` twice")
    return fields


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_without_repeats)


def json_lines(stream: RawStream, start: Mark | None) -> Iterator[tuple[Mark, dict[str, Any]]]:
    """Yields the objects from ``start`` on. Lines end at line feeds alone; blank ones are passed over, but counted.

    ``NaN`` and ``Infinity`` are taken for the numbers they mean.

    :raises DataError: A line is not UTF-8, not an object, or holds what UTF-8 cannot.
    """
    row, line, offset = (start.row, start.line, start.offset) if start else (0, 1, stream.skip_byte_order_mark())
    stream.go_to(offset)
    for raw in stream:
        if not raw.isspace():
            text = decode(raw, stream, line).rstrip("\r\n")
            yield Mark(row, line, offset), parse_object(text, stream.file.name, line)
            row += 1
        line += 1
        offset += len(raw)


def json_array(stream: RawStream, start: Mark | None) -> Iterator[tuple[Mark, dict[str, Any]]]:
    """Yields the objects of an array, or of the array under ``data`` of an object.

    :raises DataError: The file is something else, or as :func:`json_lines` says.
    """
    name = stream.file.name
    if start is None:
        offset, row = stream.skip_byte_order_mark(), 0
        scanner = JsonScanner(stream, offset=offset, line=1)
        inside_object = _enter_array(scanner, name)
        more = not scanner.take("]")
    else:
        stream.go_to(start.offset)
        # What follows the array was read when the file was looked through.
        scanner, row = JsonScanner(stream, offset=start.offset, line=start.line), start.row
        more, inside_object = True, None
    while more:
        scanner.peek()
        mark = Mark(row, scanner.line, scanner.offset)
        yield mark, parse_object(decode(scanner.value(), stream, mark.line), name, mark.line)
        row += 1
        more = scanner.take(",")
        if not more:
            scanner.expect("]")
    if inside_object:
        while scanner.take(","):
            if _key(scanner, name) == _DATA:
                raise DataError(f"{name}:{scanner.line} has `{_DATA}` twice.")
            scanner.value()
        scanner.expect("}")
    if inside_object is not None and scanner.peek():
        raise DataError(f"{name}:{scanner.line} goes on after its array. If it has an object a line: --format jsonl.")


def _enter_array(scanner: JsonScanner, name: str) -> bool:
    """Goes behind the bracket of the array with the documents. Tells whether it lies in an object."""
    if scanner.take("["):
        return False
    if not scanner.peek():
        return _empty(name)
    if scanner.take("{"):
        while scanner.peek() == '"':
            key = _key(scanner, name)
            if key == _DATA and scanner.take("["):
                return True
            scanner.value()
            if not scanner.take(","):
                break
    raise DataError(
        f"{name}:{scanner.line} is neither an array of objects nor an object with such an array as `{_DATA}`.\n"
        f"If it has an object a line: --format jsonl."
    )


def _empty(name: str) -> bool:
    raise DataError(f"{name} is empty: there is no JSON in it.")


def _key(scanner: JsonScanner, name: str) -> str:
    scanner.peek()
    line = scanner.line
    raw = scanner.value()
    try:
        key = json.loads(raw)
    except ValueError:
        key = None
    if not isinstance(key, str):
        raise DataError(f"{name}:{line} is not JSON: a key is expected, but there is {raw[:_SHOWN]!r}.")
    scanner.expect(":")
    return key


def parse_object(text: str, name: str, line: int) -> dict[str, Any]:
    """
    :param name: Of the file, and ``line`` where ``text`` begins, for messages.
    :raises DataError: It is not JSON, not an object, or holds half a surrogate pair.
    """
    where = f"{name}:{line}"
    try:
        fields = _DECODER.decode(text)
    except json.JSONDecodeError as ex:
        place = f"{name}:{line + ex.lineno - 1}"
        raise DataError(f"{place} is not JSON: {ex.msg}, at column {ex.colno:,}, {_around(ex)}.") from None
    except RecursionError:
        raise DataError(f"{where} is nested too deeply to be read.") from None
    except ValueError as ex:
        raise DataError(f"{where} cannot be used: {ex}.") from None
    if not isinstance(fields, dict):
        raise DataError(f"{where} must be an object with the columns of a document, but is {text.strip()[:_SHOWN]}.")
    if _HALF_CHARACTER.search(text):
        _refuse_half_characters(fields, where)
    return fields


def _around(error: json.JSONDecodeError) -> str:
    rest = error.doc[error.pos : error.pos + 20].strip()
    return f"before {rest!r}" if rest else "where it ends"


def _refuse_half_characters(fields: dict[str, Any], where: str) -> None:
    try:
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as ex:
        half = ex.object[ex.start].encode("unicode_escape").decode()
        raise DataError(
            f"{where} holds {half}, half of a surrogate pair, which is no character: UTF-8 cannot hold it."
        ) from None
