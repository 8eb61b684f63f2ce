"""Brings documents of every format into the one schema of their input."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from lexalcm.data.discover import reason_of
from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_files import RawFile
from lexalcm.pipelines.prepare.raw_schema import ID_COLUMN, PLACE_COLUMN
from lexalcm.pipelines.prepare.raw_streams import Mark

_MISMATCH: Final = (pa.ArrowException, TypeError, ValueError, OverflowError)


class TableMaker:
    """Makes tables in a schema, with the places of their rows behind it."""

    def __init__(self, schema: pa.Schema, id_column: str | None) -> None:
        """
        :param schema: With ``id``, which is text.
        :param id_column: What the input calls it; ``None``: ids are made, of the file and the number in it from 1.
        """
        self._schema = schema
        self._id_column = id_column
        self._converters = {field.name: _converter(field.type) for field in schema}

    @property
    def names(self) -> list[str]:
        return self._schema.names

    def source_of(self, column: str) -> str | None:
        """The column of the input that ``column`` of the schema comes from."""
        return self._id_column if column == ID_COLUMN else column

    def from_documents(self, file: RawFile, documents: Sequence[tuple[Mark, dict[str, Any]]]) -> pa.Table:
        """
        :param documents: Of a file of text, with their places.
        :raises DataError: A value is not of its column's type.
        """
        columns = []
        for field in self._schema:
            source = self.source_of(field.name)
            if source is None:
                values = [_made_id(file, mark.row) for mark, _ in documents]
            elif source in file.columns:
                values = [file.columns[source]] * len(documents)
            else:
                convert = self._converters[field.name]
                values = [convert(fields.get(source)) for _, fields in documents]
            columns.append(_array(values, field, f"{file.name}:{documents[0][0].line}"))
        places = [file.name if file.format == "txt" else f"{file.name}:{mark.line}" for mark, _ in documents]
        return self._with_places(columns, places)

    def from_rows(self, file: RawFile, rows: pa.Table, first: int) -> pa.Table:
        """
        :param rows: Of a file of rows, and ``first`` the number of the first one in it.
        :raises DataError: Text is not UTF-8, or a value is not of its column's type.
        """
        columns = []
        for field in self._schema:
            source = self.source_of(field.name)
            if source is None:
                values = [_made_id(file, first + number) for number in range(rows.num_rows)]
                columns.append(pa.array(values, field.type))
            elif source in file.columns:
                columns.append(pa.array([file.columns[source]] * rows.num_rows, field.type))
            elif source in rows.schema.names:
                columns.append(self._cast(rows.column(source), field, f"{file.name}: rows from {first} on"))
            else:
                columns.append(pa.nulls(rows.num_rows, field.type))
        return self._with_places(columns, [f"{file.name}: row {first + number}" for number in range(rows.num_rows)])

    def _cast(self, column: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as ex:
            raise DataError(f"{where}: column `{field.name}` is damaged: {reason_of(ex)}.") from None
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
        if column.type == field.type:
            return column
        try:
            return column.cast(field.type, safe=not pa.types.is_floating(field.type))
        except _MISMATCH:
            return _array([self._converters[field.name](value) for value in column.to_pylist()], field, where)

    def _with_places(self, columns: list[Any], places: list[str]) -> pa.Table:
        table = pa.table(columns, schema=self._schema)
        return table.append_column(PLACE_COLUMN, pa.array(places, pa.string()))


def _made_id(file: RawFile, row: int) -> str:
    return file.id_prefix if file.format == "txt" else f"{file.id_prefix}-{row + 1}"


def _array(values: list[Any], field: pa.Field, where: str) -> Any:
    try:
        return pa.array(values, field.type)
    except _MISMATCH as ex:
        raise DataError(
            f"{where} or soon after: column `{field.name}` is not {field.type} any more: {reason_of(ex)}.\n"
            f"The file changed since the input was looked through."
        ) from None


def _converter(kind: pa.DataType) -> Callable[[Any], Any]:
    """Returns what makes a value of JSON one that Arrow takes for ``kind``."""
    if pa.types.is_string(kind):
        return _as_text
    if pa.types.is_floating(kind):
        # Arrow refuses whole numbers that a double must round.
        return lambda value: float(value) if type(value) is int else value
    if pa.types.is_list(kind):
        convert = _converter(kind.value_type)
        return lambda value: None if value is None else [convert(item) for item in value]
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: _converter(kind.field(i).type) for i in range(kind.num_fields)}
        return lambda value: None if value is None else {n: convert(value.get(n)) for n, convert in fields.items()}
    return lambda value: value


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
