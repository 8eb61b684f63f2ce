"""Row filters given as data: a column, an operator, a value, and groups of them. Nothing is ever evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial, reduce
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
LENGTH: Final = "length"
CHARACTERS: Final = "characters"
_MEASURES: Final[Mapping[str, Callable[[Any], Any]]] = {LENGTH: pc.list_value_length, CHARACTERS: pc.utf8_length}
_GROUPS: Final = ("all_of", "any_of", "none_of")


@dataclass(kw_only=True)
class FilterConfig:
    """Keeps the rows whose ``column`` compares with ``value`` as ``operator`` says; or a group of such filters.

    A null passes no comparison. As in Arrow and SQL, what it was compared in is neither true nor false, so that it does
    not pass ``none_of`` the comparison either.
    """

    column: str | None = None
    """A column of the files, or a partition of their paths (``lang`` in ``lang=eng_Latn/``), whose values are text."""

    operator: str = "=="
    """``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``not in``, ``is null`` or ``is not null``."""

    value: object = None
    """What is compared with; a list for ``in`` and ``not in``; nothing for the null tests."""

    function: str | None = None
    """``length`` compares how many items the column's lists have, instead of the lists; ``characters``, how many its texts
    have."""

    all_of: list[FilterConfig] = field(default_factory=list)
    """Instead of a column: rows must pass all of these."""

    any_of: list[FilterConfig] = field(default_factory=list)
    """Instead of a column: rows must pass one of these."""

    none_of: list[FilterConfig] = field(default_factory=list)
    """Instead of a column: rows must fail all of these."""

    def check(self) -> None:
        """:raises ConfigError: The operator is not known, or the value does not go with it."""
        groups = [name for name in _GROUPS if getattr(self, name)]
        if groups:
            self._check_group(groups[0])
            return
        if not isinstance(self.column, str) or not self.column:
            raise ConfigError(f"filter: `column` must be the name of a column, but is {self.column!r}.")
        if self.operator not in OPERATORS:
            raise ConfigError(f"filter on `{self.column}`: {unknown_name('operator', str(self.operator), OPERATORS)}")
        if self.function not in (None, *_MEASURES):
            raise ConfigError(f"filter on `{self.column}`: {unknown_name('function', str(self.function), _MEASURES)}")
        if self.operator in _MEMBERSHIPS and not isinstance(self.value, (list, tuple)):
            raise ConfigError(f"filter on `{self.column}`: `{self.operator}` needs a list, but has {self.value!r}.")
        if self.operator in _COMPARISONS and (self.value is None or isinstance(self.value, (list, tuple, dict))):
            raise ConfigError(
                f"filter on `{self.column}`: `{self.operator}` needs one value, but has {self.value!r}. Nulls are "
                f"found with `is null`."
            )

    def _check_group(self, name: str) -> None:
        group = getattr(self, name)
        if not isinstance(group, (list, tuple)) or not all(isinstance(config, FilterConfig) for config in group):
            raise ConfigError(f"filter: `{name}` must be a list of filters, but is {str(group)[:80]!r}.")
        if self != FilterConfig(**{name: group}):
            raise ConfigError(f"filter: `{name}` stands alone; an `all_of` joins it with others.")
        for config in group:
            config.check()

    def conditions(self) -> Iterator[FilterConfig]:
        """The comparisons of this filter, those inside groups included."""
        inside = [*self.all_of, *self.any_of, *self.none_of]
        if not inside:
            yield self
        for config in inside:
            yield from config.conditions()

    def describe(self) -> str:
        """The filter in one line."""
        for name in _GROUPS:
            if getattr(self, name):
                return f"{name} ({', '.join(config.describe() for config in getattr(self, name))})"
        return f"{self._what} {self.operator} {self.value!r}"

    @property
    def _what(self) -> str:
        return f"{self.function} of {self.column}" if self.function else str(self.column)


def columns_of(config: FilterConfig) -> set[str]:
    """The columns and partitions that a filter names."""
    return {str(condition.column) for condition in config.conditions()}


def passes_partitions(filters: list[FilterConfig], partitions: Mapping[str, str | None]) -> bool:
    """Tells whether a file's partition values pass the filters that are on partitions alone."""
    decided = [config for config in filters if columns_of(config) <= partitions.keys()]
    return all(_evaluate(config, partial(_of_partition, partitions)).as_py() is True for config in decided)


def filters_on_rows(filters: list[FilterConfig], partitions: Mapping[str, str | None]) -> list[FilterConfig]:
    """The filters that a file's partition values do not decide."""
    return [config for config in filters if not columns_of(config) <= partitions.keys()]


def row_mask(
    filters: list[FilterConfig], table: pa.Table, *, partitions: Mapping[str, str | None], file: str
) -> np.ndarray:
    """Tells, for each row of a table, whether it passes all filters.

    :param filters: At least one column of each is the file's; ``table`` holds these columns.
    :raises DataError: A value cannot be compared with its column.
    """

    def of_row(config: FilterConfig) -> Any:
        if config.column in partitions:
            return _of_partition(partitions, config)
        return _of_column(table.column(config.column), config, file)

    mask = np.ones(table.num_rows, dtype=bool)
    for config in filters:
        mask &= pc.fill_null(_evaluate(config, of_row), False).to_numpy()
    return mask


def _evaluate(config: FilterConfig, compare: Callable[[FilterConfig], Any]) -> Any:
    """True, false or null, of one row or of many, by Kleene's logic: what a null cannot change is not null."""
    if config.all_of:
        return reduce(pc.and_kleene, (_evaluate(c, compare) for c in config.all_of))
    if config.any_of:
        return reduce(pc.or_kleene, (_evaluate(c, compare) for c in config.any_of))
    if config.none_of:
        return pc.invert(reduce(pc.or_kleene, (_evaluate(c, compare) for c in config.none_of)))
    return compare(config)


def _of_partition(partitions: Mapping[str, str | None], config: FilterConfig) -> pa.BooleanScalar:
    value = partitions[str(config.column)]
    if config.operator in _NULL_TESTS:
        return pa.scalar((value is None) == (config.operator == "is null"))
    if value is None:
        return pa.scalar(None, pa.bool_())
    if config.operator in _MEMBERSHIPS:
        return pa.scalar((value in [str(v) for v in _listed(config)]) == (config.operator == "in"))
    # A path holds text; what it is compared with is taken as text too, so that year == 2024 means year=2024.
    return _COMPARISONS[config.operator](pa.scalar(value), pa.scalar(str(config.value)))


def _of_column(column: pa.ChunkedArray, config: FilterConfig, file: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return _compare(config, column if config.function is None else _MEASURES[config.function](column))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as ex:
        raise DataError(
            f"{file}: filter on `{config.column}`: {config.value!r} cannot be compared with "
            f"{f'the {config.function} of ' if config.function else ''}{column.type} ({str(ex).splitlines()[0]})."
        ) from None


def _compare(config: FilterConfig, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if config.operator in _NULL_TESTS:
        return pc.is_null(column) if config.operator == "is null" else pc.is_valid(column)
    if config.operator in _MEMBERSHIPS:
        inside = pc.is_in(column, value_set=_value_set(_listed(config), column.type))
        passed = inside if config.operator == "in" else pc.invert(inside)
        return pc.if_else(pc.is_valid(column), passed, pa.scalar(None, pa.bool_()))
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


def check_columns(filters: list[FilterConfig], columns: list[str], partitions: Mapping[str, Any], *, file: str) -> None:
    """:raises DataError: A filter names a column that neither the file nor its path has, or a path's value's length."""
    known = [*columns, *partitions]
    for config in (condition for row_filter in filters for condition in row_filter.conditions()):
        if config.column not in known:
            raise DataError(
                f"{file} has no column `{config.column}`, which a filter names."
                f"{near_match(str(config.column), known)}\nColumns: {', '.join(known)}."
            )
        if config.function == LENGTH and config.column in partitions:
            raise DataError(f"{file}: a filter asks for the length of `{config.column}`, which is a partition's text.")
