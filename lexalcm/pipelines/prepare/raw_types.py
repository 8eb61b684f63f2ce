"""The types of an input's columns: what values of JSON are, what Arrow has, and what holds all of them."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from lexalcm.errors import DataError

_KINDS: Final = {
    type(None): "null",
    bool: "true or false",
    int: "whole numbers",
    float: "numbers",
    str: "text",
    list: "lists",
    dict: "objects",
}
_SCALARS: Final = {
    "true or false": pa.bool_(),
    "whole numbers": pa.int64(),
    "numbers": pa.float64(),
    "text": pa.string(),
}
_TOO_LARGE: Final = "whole numbers beyond 64 bits"
_MOST_FIELDS: Final = 256
_BOUND: Final = 2**63


class JsonType:
    """What one column of JSON, or one place within its values, was seen to hold."""

    __slots__ = ("fields", "items", "kinds")

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        """Each kind, with the place where it was first seen."""

        self.items: JsonType | None = None
        self.fields: dict[str, JsonType] = {}

    def see(self, value: Any, name: str, line: int) -> None:
        """
        :param name: Of the file, and ``line`` in it: the place of ``value``.
        """
        kind = _KINDS[type(value)]
        if kind == "whole numbers" and not -_BOUND <= value < _BOUND:
            kind = _TOO_LARGE
        if kind not in self.kinds:
            self.kinds[kind] = f"{name}:{line}"
        if kind == "lists":
            self.items = self.items or JsonType()
            for item in value:
                self.items.see(item, name, line)
        elif kind == "objects" and len(self.fields) <= _MOST_FIELDS:
            for key, item in value.items():
                if key not in self.fields:
                    self.fields[key] = JsonType()
                self.fields[key].see(item, name, line)

    def column_type(self, column: str) -> pa.DataType:
        """Type of a whole column. Lists and objects whose values do not go together are kept as JSON text.

        :raises DataError: Values are of several types.
        """
        kinds = [kind for kind in self.kinds if kind != "null"]
        if _TOO_LARGE in kinds:
            raise DataError(
                f"{self.kinds[_TOO_LARGE]}: column `{column}` holds a whole number beyond 64 bits.\n{fixes(column)}"
            )
        found = self._arrow()
        if found is None and len(kinds) == 1:
            return pa.string()
        if found is None:
            raise mixed(column, kinds[0], self.kinds[kinds[0]], kinds[1], self.kinds[kinds[1]])
        return found

    def _arrow(self) -> pa.DataType | None:
        """``None`` where no Arrow type holds all that was seen."""
        kinds = set(self.kinds) - {"null"}
        if not kinds:
            return pa.null()
        if kinds == {"whole numbers", "numbers"}:
            return pa.float64()
        if len(kinds) > 1 or _TOO_LARGE in kinds:
            return None
        kind = kinds.pop()
        if kind in _SCALARS:
            return _SCALARS[kind]
        if kind == "lists":
            item = self.items._arrow() if self.items else None
            return None if item is None else pa.list_(item)
        # Parquet has no objects without fields, and what has hundreds is a table of its own, its names data.
        if not 0 < len(self.fields) <= _MOST_FIELDS:
            return None
        types = {name: of._arrow() for name, of in self.fields.items()}
        return None if None in types.values() else pa.struct(list(types.items()))


def fixes(column: str) -> str:
    """What can be done about a column that no type holds."""
    return f"Leave it out (--drop-column {column}), or take it as text (--as-text {column})."


def mixed(column: str, first: str, first_place: str, second: str, second_place: str) -> DataError:
    """The error of a column of two types."""
    return DataError(
        f"{second_place}: column `{column}` holds {second}, but at {first_place} it holds {first}.\n{fixes(column)}"
    )


def plain(kind: pa.DataType) -> pa.DataType:
    """The type without the encodings that Arrow has for it: dictionaries, large offsets, views."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    if isinstance(kind, (pa.ListType, pa.LargeListType, pa.ListViewType, pa.LargeListViewType)):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(i).name, plain(kind.field(i).type)) for i in range(kind.num_fields)])
    return kind


def unified(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The type that holds both: null and anything, whole numbers and numbers; else ``None``."""
    if first == second:
        return first
    if {first, second} == {pa.binary(), pa.string()}:
        return None
    try:
        schemas = [pa.schema([("column", kind)]) for kind in (first, second)]
        return plain(pa.unify_schemas(schemas, promote_options="permissive").field(0).type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return None


def without_nulls(kind: pa.DataType) -> pa.DataType:
    """Types of which nothing but nulls was seen become text: files of one data set must agree."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(without_nulls(kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(without_nulls(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(i).name, without_nulls(kind.field(i).type)) for i in range(kind.num_fields)])
    return kind
