"""Row filters given as data: a column, an operator, a value. Nothing is ever evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexalcm.errors import ConfigError, DataError, near_match, unknown_name

_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_MEMBERSHIPS: Final = ("in", "not in")
_NULL_TESTS: Final = ("is null", "is not null")
OPERATORS: Final = (*_COMPARISONS, *_MEMBERSHIPS, *_NULL_TESTS)


@dataclass(kw_only=True)
class FilterConfig:
    """Keeps the rows whose ``column`` compares with ``value`` as ``operator`` says. A null passes no comparison."""

    column: str
    """A column of the files, or a partition of their paths (``lang`` in ``lang=eng_Latn/``), whose values are text."""

    operator: str = "=="
    """``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``not in``, ``is null`` or ``is not null``."""

    value: object = None
    """What is compared with; a list for ``in`` and ``not in``; nothing for the null tests."""

    def check(self) -> None:
        """:raises ConfigError: The operator is not known, or the value does not go with it."""
        if not isinstance(self.column, str) or not self.column:
            raise ConfigError(f"filter: `column` must be the name of a column, but is {self.column!r}.")
        if self.operator not in OPERATORS:
            raise ConfigError(f"filter on `{self.column}`: {unknown_name('operator', str(self.operator), OPERATORS)}")
        if self.operator in _MEMBERSHIPS and not isinstance(self.value, (list, tuple)):
            raise ConfigError(f"filter on `{self.column}`: `{self.operator}` needs a list, but has {self.value!r}.")
        if self.operator in _COMPARISONS and (self.value is None or isinstance(self.value, (list, tuple, dict))):
            raise ConfigError(
                f"filter on `{self.column}`: `{self.operator}` needs one value, but has {self.value!r}. Nulls are "
                f"found with `is null`."
            )


def passes_partitions(filters: list[FilterConfig], partitions: Mapping[str, str | None]) -> bool:
    """Tells whether a file's partition values pass the filters on partition columns."""
    return all(_passes(f, partitions[f.column]) for f in filters if f.column in partitions)


def _passes(config: FilterConfig, value: str | None) -> bool:
    if config.operator in _NULL_TESTS:
        return (value is None) == (config.operator == "is null")
    if value is None:
        return False
    if config.operator in _MEMBERSHIPS:
        return (value in [str(v) for v in _listed(config)]) == (config.operator == "in")
    # A path holds text; what it is compared with is taken as text too, so that year == 2024 means year=2024.
    return bool(_COMPARISONS[config.operator](pa.scalar(value), pa.scalar(str(config.value))).as_py())


def row_mask(filters: list[FilterConfig], table: pa.Table, *, file: str) -> np.ndarray:
    """Tells, for each row of a table, whether it passes all filters.

    :param filters: Those on columns of the file; ``table`` holds these columns.
    :raises DataError: A value cannot be compared with its column.
    """
    mask = np.ones(table.num_rows, dtype=bool)
    for config in filters:
        column = table.column(config.column)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            passed = _compare(config, column)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as ex:
            raise DataError(
                f"{file}: filter on `{config.column}`: {config.value!r} cannot be compared with {column.type} "
                f"({str(ex).splitlines()[0]})."
            ) from None
        mask &= pc.fill_null(passed, False).to_numpy()
    return mask


def _compare(config: FilterConfig, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if config.operator in _NULL_TESTS:
        return pc.is_null(column) if config.operator == "is null" else pc.is_valid(column)
    if config.operator in _MEMBERSHIPS:
        inside = pc.is_in(column, value_set=_value_set(_listed(config), column.type))
        passed = inside if config.operator == "in" else pc.invert(inside)
        return pc.and_(passed, pc.is_valid(column))
    value = pa.scalar(config.value)
    if pa.types.is_temporal(column.type) and pa.types.is_string(value.type):
        value = value.cast(column.type)  # a date in a card is text
    return _COMPARISONS[config.operator](column, value)


def _value_set(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_temporal(kind) and all(isinstance(value, str) for value in values):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, kind)


def _listed(config: FilterConfig) -> list[Any]:
    assert isinstance(config.value, (list, tuple))
    return list(config.value)


def check_columns(filters: list[FilterConfig], columns: list[str], *, file: str) -> None:
    """:raises DataError: A filter names a column that neither the file nor its path has."""
    for config in filters:
        if config.column not in columns:
            raise DataError(
                f"{file} has no column `{config.column}`, which a filter names.{near_match(config.column, columns)}\n"
                f"Columns: {', '.join(columns)}."
            )
