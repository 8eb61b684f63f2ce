"""Finds the one schema of an input while its files are looked through."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import pyarrow as pa

from lexalcm.errors import DataError, near_match
from lexalcm.pipelines.prepare.raw_types import JsonType, fixes, mixed, plain, unified, without_nulls

ID_COLUMN: Final = "id"
ROW_COLUMN: Final = "__row"
PLACE_COLUMN: Final = "__place"
_MOST_COLUMNS: Final = 4096


class SchemaFinder:
    """Takes in the columns of one file after the other."""

    def __init__(self, text_columns: Sequence[str], drop_columns: Collection[str], as_text: Collection[str]) -> None:
        self._texts = tuple(text_columns)
        self._drop, self._as_text = set(drop_columns), set(as_text)
        self._json: dict[str, JsonType] = {}
        self._arrow: dict[str, tuple[pa.DataType, str]] = {}
        self._order: dict[str, None] = {}
        self._file: dict[str, None] = {}
        self.dropped: set[str] = set()
        """Columns that were there and are left out."""

    def see_document(self, fields: dict[str, Any], name: str, line: int) -> None:
        """Takes in one object of JSON.

        :param name: Of the file, and ``line`` in it.
        :raises DataError: What should be text is not.
        """
        for column, value in fields.items():
            if column in self._drop:
                self.dropped.add(column)
                continue
            if column not in self._file:
                self._file[column] = None
                self._check_name(column, f"{name}:{line}")
            if column in self._as_text:
                self.see_type(column, pa.string(), f"{name}:{line}")
                continue
            if column not in self._json:
                self._json[column] = JsonType()
            self._json[column].see(value, name, line)
            if column in self._texts and value is not None and not isinstance(value, str):
                kind = next(k for k, place in self._json[column].kinds.items() if k not in ("null", "text"))
                raise DataError(f"{name}:{line}: `{column}` must be text, but holds {kind}.")

    def see_type(self, column: str, kind: pa.DataType, place: str) -> None:
        """Takes in a column of Arrow.

        :raises DataError: What should be text is not, or other files have another type.
        """
        if column in self._drop:
            self.dropped.add(column)
            return
        if column not in self._file:
            self._file[column] = None
            self._check_name(column, place)
        kind = plain(kind)
        if column in self._as_text:
            if pa.types.is_nested(kind):
                raise DataError(f"{place}: `{column}` is {kind}, which cannot be taken as text.")
            kind = pa.string()
        if column in self._texts and kind not in (pa.string(), pa.null()):
            raise DataError(f"{place}: `{column}` must be text, but is {kind}.")
        before, first_place = self._arrow.get(column, (kind, place))
        both = unified(before, kind)
        if both is None:
            raise mixed(column, str(before), first_place, str(kind), place)
        self._arrow[column] = (both, first_place)

    def end_file(self, name: str, *, has_documents: bool) -> None:
        """
        :param name: Of the file.
        :raises DataError: The file has documents but no text.
        """
        for text in self._texts:
            if has_documents and text not in self._file:
                raise DataError(
                    f"{name} has no column `{text}` to take text from (--text-column), but: "
                    f"{', '.join(self._file)[:300] or 'none'}.{near_match(text, self._file)}"
                )
        self._file = {}

    def columns(self) -> dict[str, pa.DataType]:
        """All columns in the order in which they were first seen.

        :raises DataError: A column holds several types.
        """
        types: dict[str, pa.DataType] = {}
        for column in self._order:
            found = self._arrow.get(column)
            if column in self._json:
                seen = self._json[column]
                kind = seen.column_type(column)
                place = next((p for k, p in seen.kinds.items() if k != "null"), "")
                both = kind if found is None else unified(found[0], kind)
                if both is None:
                    assert found is not None
                    raise mixed(column, str(found[0]), found[1], str(kind), place)
                found = (both, place)
            assert found is not None
            types[column] = pa.string() if column in self._texts else without_nulls(found[0])
        return types

    def place_of(self, column: str) -> str:
        """Where a column was first seen."""
        if column in self._json:
            return next(iter(self._json[column].kinds.values()))
        return self._arrow[column][1]

    def _check_name(self, column: str, place: str) -> None:
        self._order[column] = None
        if column in (ROW_COLUMN, PLACE_COLUMN):
            raise DataError(f"{place}: a column cannot be called `{column}`. Leave it out (--drop-column {column}).")
        if len(self._order) > _MOST_COLUMNS:
            raise DataError(
                f"{place}: the input has more than {_MOST_COLUMNS:,} columns by now: names of columns seem to be data. "
                f"The last one is `{column[:60]}`."
            )


def check_usable(types: dict[str, pa.DataType], finder: SchemaFinder, columns: dict[str, str | None]) -> None:
    """
    :param columns: What is asked for, by option.
    :raises DataError: It is not there, or is of a type that cannot play its role.
    """
    for option, column in columns.items():
        if column is None:
            continue
        if column not in types:
            raise DataError(
                f"The input has no column `{column}` (--{option}), but: {', '.join(types)[:300]}."
                f"{near_match(column, types)}"
            )
        kind = types[column]
        if kind != pa.string() and not (option == "id-column" and pa.types.is_integer(kind)):
            what = "text or whole numbers" if option == "id-column" else "text"
            raise DataError(
                f"{finder.place_of(column)}: `{column}` (--{option}) must be {what}, but is {kind}.\n{fixes(column)}"
            )
