"""Reads the filters of Meta's cards into filters that are data.

Meta writes them as Python expressions of pyarrow and runs them, say
``pa.compute.greater(pa.dataset.field("year"), 2019)``, or as the lists of triples that pyarrow takes too, say
``[("year", ">", 2019)]``. Here their text is parsed, what people use of it is understood, and whatever else it holds is
refused by name.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from lexalcm.data.filters import CHARACTERS, LENGTH, FilterConfig
from lexalcm.errors import ConfigError, near_match

_COMPUTE: Final = ("pc", "pa.compute", "pyarrow.compute", "compute")
_FIELD: Final = ("", *_COMPUTE, "ds", "pa.dataset", "pyarrow.dataset", "dataset")
_VALUE: Final = (*_COMPUTE, "pa", "pyarrow")

_COMPARISONS: Final[Mapping[str, str]] = {
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
}
_SIGNS: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_TURNED: Final[Mapping[str, str]] = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NULL_TESTS: Final[Mapping[str, str]] = {"is_null": "is null", "is_valid": "is not null"}
# pyarrow has no and_ and or_ of expressions, and fails on them; they are taken for what & and | are.
_GROUPS: Final[Mapping[str, str]] = {"and_": "all_of", "and_kleene": "all_of", "or_": "any_of", "or_kleene": "any_of"}
_MEASURES: Final[Mapping[str, tuple[str, str]]] = {
    "list_value_length": ("lists", LENGTH),
    "utf8_length": ("strings", CHARACTERS),
}
"""Functions of a column: the name of their argument, and what they are in a filter."""

_FUNCTIONS: Final = (*_COMPARISONS, *_NULL_TESTS, *_GROUPS, *_MEASURES, "is_in", "invert", "field", "scalar")

_TRIPLE_OPERATORS: Final[Mapping[str, str]] = {"=": "==", **{sign: sign for sign in _SIGNS.values()}}

_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}
"""Of two numbers, as in 16_000 * 30."""

_AND: Final = (ast.BitAnd, ast.And)
_OR: Final = (ast.BitOr, ast.Or)

_MOST_CHARACTERS: Final = 10_000
_MOST_NESTED: Final = 30


def parse_filters(text: str, *, where: str) -> list[FilterConfig]:
    """Returns filters that keep the rows for which pyarrow evaluates the expression to true; none for blank text.

    :param where: What the text is, for messages: a card and its field.
    :raises ConfigError: Something in it is not understood.
    """
    if not text.strip():
        return []
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"{where}: an expression of {len(text):,} characters is too long to be a filter.")
    try:
        root = ast.parse(text.strip(), mode="eval").body
        expression = _Expression(text.strip(), where)
        return expression.triples(root) if isinstance(root, (ast.List, ast.Tuple)) else expression.filters(root)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as ex:
        # The last two: what is nested a thousand deep.
        reason = str(ex).splitlines()[0] if str(ex) else type(ex).__name__
        raise ConfigError(f"{where}: `{text.strip()[:80]}` is not an expression: {reason}.") from None


def _terms(node: ast.expr, operators: tuple[type, ...]) -> list[ast.expr]:
    """What a chain of these operators joins."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, operators):
        return [*_terms(node.left, operators), *_terms(node.right, operators)]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, operators):
        return [term for value in node.values for term in _terms(value, operators)]
    return [node]


class _Expression:
    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._depth = 0

    def filters(self, node: ast.expr) -> list[FilterConfig]:
        """A condition as filters that must all pass: those on partitions alone leave whole files unread."""
        terms = _terms(node, _AND)
        if isinstance(node, ast.Call) and _GROUPS.get(self._function(node, _COMPUTE) or "") == "all_of":
            terms = self._arguments(node, "x", "y")
        if len(terms) == 1:
            return [self.condition(node)]
        return [config for term in terms for config in self.filters(term)]

    def triples(self, node: ast.List | ast.Tuple) -> list[FilterConfig]:
        """Triples that must all pass, or lists of such of which one must."""
        if not node.elts:
            self._refuse(node, "It must hold triples of column, operator and value.")
        if all(isinstance(item, ast.List) for item in node.elts):
            choices = [self.triples(item) for item in node.elts if isinstance(item, ast.List)]
            if len(choices) == 1:
                return choices[0]
            return [FilterConfig(any_of=[c[0] if len(c) == 1 else FilterConfig(all_of=c) for c in choices])]
        return [self._triple(item) for item in node.elts]

    def _triple(self, node: ast.expr) -> FilterConfig:
        parts = node.elts if isinstance(node, (ast.Tuple, ast.List)) else []
        texts = [part.value for part in parts[:2] if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        if len(parts) != 3 or len(texts) != 2 or not texts[0]:
            self._refuse(node, "It must be a triple of column, operator and value.")
        column, sign = texts
        config = FilterConfig(column=column)
        if sign in _TRIPLE_OPERATORS:
            return replace(config, operator=_TRIPLE_OPERATORS[sign], value=self._comparable(node, parts[2]))
        if sign in ("in", "not in"):
            inside = self._inside(config, parts[2])
            return inside if sign == "in" else FilterConfig(none_of=[inside])
        self._refuse(parts[1], near_match(sign, [*_TRIPLE_OPERATORS, "in", "not in"]).strip())

    def condition(self, node: ast.expr) -> FilterConfig:
        """What is true, false or null of each row."""
        self._depth += 1
        if self._depth > _MOST_NESTED:
            self._refuse(node, "It is nested too deep.")
        for operators, group in ((_AND, "all_of"), (_OR, "any_of")):
            terms = _terms(node, operators)
            if len(terms) > 1:
                config = FilterConfig(**{group: [self.condition(term) for term in terms]})
                break
        else:
            config = self._term(node)
        self._depth -= 1
        return config

    def _term(self, node: ast.expr) -> FilterConfig:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Invert, ast.Not)):
            return FilterConfig(none_of=[self.condition(node.operand)])
        if isinstance(node, ast.Compare):
            if len(node.ops) > 1 or type(node.ops[0]) not in _SIGNS:
                self._refuse(node, "It must compare two sides by ==, !=, <, <=, > or >=.")
            return self._comparison(node, _SIGNS[type(node.ops[0])], node.left, node.comparators[0])
        if isinstance(node, ast.Call):
            return self._call(node)
        self._refuse(node)

    def _call(self, node: ast.Call) -> FilterConfig:
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
            return self._method(node, node.func.attr, node.func.value)
        if self._function(node, _FIELD) == "field":
            return replace(self._operand(node), value=True)  # a column of booleans
        name = self._function(node, _COMPUTE)
        if name in _COMPARISONS:
            return self._comparison(node, _COMPARISONS[name], *self._arguments(node, "x", "y"))
        if name in _NULL_TESTS:
            (column,) = self._arguments(node, "values")
            return replace(self._operand(column), operator=_NULL_TESTS[name])
        if name == "is_in":
            return self._membership(*self._arguments(node, "values", "value_set"))
        if name == "invert":
            return FilterConfig(none_of=[self.condition(*self._arguments(node, "values"))])
        if name in _GROUPS:
            return FilterConfig(**{_GROUPS[name]: [self.condition(part) for part in self._arguments(node, "x", "y")]})
        self._refuse(node)

    def _method(self, node: ast.Call, name: str, column: ast.Call) -> FilterConfig:
        if name in _NULL_TESTS:
            self._arguments(node)
            return replace(self._operand(column), operator=_NULL_TESTS[name])
        if name == "isin":
            return self._membership(column, *self._arguments(node, "values"))
        self._refuse(node.func, near_match(name, ["isin", *_NULL_TESTS]).strip())

    def _comparison(self, node: ast.expr, operator: str, left: ast.expr, right: ast.expr) -> FilterConfig:
        if self._is_column(left) == self._is_column(right):
            self._refuse(node, "It must have a column on one side and a value on the other.")
        if self._is_column(right):
            left, right, operator = right, left, _TURNED.get(operator, operator)
        return replace(self._operand(left), operator=operator, value=self._comparable(node, right))

    def _comparable(self, node: ast.expr, value: ast.expr) -> object:
        found = self._value(value)
        if found is None:
            self._refuse(node, "Nothing equals null: use is_null() or is_valid().")
        return found

    def _membership(self, column: ast.expr, listed: ast.expr) -> FilterConfig:
        return self._inside(self._operand(column), listed)

    def _inside(self, column: FilterConfig, listed: ast.expr) -> FilterConfig:
        values = self._values(listed)
        inside = replace(column, operator="in", value=[v for v in values if v is not None])
        # Arrow takes a null for a value like any other here: it is in the list or not, and never unknown.
        if None in values:
            return FilterConfig(any_of=[inside, replace(inside, operator="is null", value=None)])
        return FilterConfig(all_of=[inside, replace(inside, operator="is not null", value=None)])

    def _is_column(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and (
            self._function(node, _FIELD) == "field" or self._function(node, _COMPUTE) in _MEASURES
        )

    def _operand(self, node: ast.expr) -> FilterConfig:
        """A filter with nothing but the column, and the function if its length is meant."""
        measure = _MEASURES.get(self._function(node, _COMPUTE) or "") if isinstance(node, ast.Call) else None
        if measure is not None and isinstance(node, ast.Call):
            (column,) = self._arguments(node, measure[0])
            if not self._is_column(column) or self._operand(column).function is not None:
                self._refuse(node)
            return replace(self._operand(column), function=measure[1])
        if isinstance(node, ast.Call) and self._function(node, _FIELD) == "field":
            (name,) = self._arguments(node, "name")
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and name.value:
                return FilterConfig(column=name.value)
        self._refuse(node)

    def _value(self, node: ast.expr) -> object:
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (str, int, float))):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            value = self._value(node.operand)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            left, right = self._value(node.left), self._value(node.right)
            if all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (left, right)):
                return _ARITHMETIC[type(node.op)](left, right)
        if isinstance(node, ast.Call) and self._function(node, _VALUE) == "scalar":
            return self._value(*self._arguments(node, "value"))
        self._refuse(node, "A value must be a text, a number, True or False.")

    def _values(self, node: ast.expr) -> list[object]:
        if isinstance(node, ast.Call) and self._function(node, ("pa", "pyarrow")) == "array":
            return self._values(*self._arguments(node, "values"))
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return [self._value(item) for item in node.elts]
        self._refuse(node, "Values to look for must be a list.")

    def _function(self, node: ast.Call, modules: Sequence[str]) -> str | None:
        """The name of a function that is called, if it is of one of the modules."""
        parts: list[str] = []
        function = node.func
        while isinstance(function, ast.Attribute):
            parts.insert(0, function.attr)
            function = function.value
        if not isinstance(function, ast.Name):
            return None
        *module, name = [function.id, *parts]
        return name if ".".join(module) in modules else None

    def _arguments(self, node: ast.Call, *names: str) -> list[ast.expr]:
        """Arguments in the order of ``names``; every one must be given, and no other."""
        expected = f"It must have {len(names) or 'no'} argument(s){': ' if names else ''}{', '.join(names)}."
        given = dict(zip(names, node.args))
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if len(node.args) > len(names) or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._refuse(node, expected)
        if keywords.keys() != set(names) - given.keys():
            self._refuse(node, expected)
        return [{**given, **keywords}[name] for name in names]

    def _refuse(self, node: ast.expr, hint: str = "") -> NoReturn:
        piece = " ".join((ast.get_source_segment(self._text, node) or self._text).split())
        if isinstance(node, ast.Call) and not hint:
            name = (ast.get_source_segment(self._text, node.func) or "").rsplit(".", 1)[-1]
            hint = "" if name in _FUNCTIONS else near_match(name, _FUNCTIONS).strip()
        raise ConfigError(
            f"{self._where}: `{piece[:80]}` is not understood.{f' {hint}' if hint else ''}\n"
            f"Filters are data and are not run. Understood are comparisons of field(..), list_value_length(field(..)) or "
            f"utf8_length(field(..)) with a value, is_in, is_null, is_valid, &, | and ~ of these, and lists of triples."
        )
