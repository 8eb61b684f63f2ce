"""Meta's filters keep the rows that pyarrow's own evaluation keeps, and nothing in them is ever run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from lexalcm.data.filter_expressions import parse_filters
from lexalcm.data.filters import FilterConfig, passes_partitions, row_mask
from lexalcm.errors import ConfigError, DataError

TABLE = pa.table(
    {
        "row": pa.array(range(9)),
        "a": pa.array([1, 2, None, 3, None, 0, 2, 5, 1]),
        "b": pa.array([1.5, None, None, 2.0, 0.5, float("nan"), 2.0, -1.0, 9.0]),
        "lang": pa.array(["en", None, "de", "en", "ja", None, "de", "ja", "fr"]),
        "text": pa.array(["a", "longer", None, "\u65e5\u672c\u8a9e", "", "sixsix", "fives", "x" * 9, "four"]),
        "ok": pa.array([True, None, False, True, True, None, False, True, False]),
        "words": pa.array([["x"], [], None, ["x", "y"], ["z"] * 5, ["x"], None, [], ["x", "y", "z"]]),
    }
)

UNDERSTOOD: dict[str, pc.Expression] = {
    'pa.compute.greater_equal(pa.compute.list_value_length(pa.dataset.field("words")), 2)': (
        pc.greater_equal(pc.list_value_length(pc.field("words")), 2)
    ),
    'pc.greater(pc.list_value_length(pc.field("words")), 1)': pc.greater(pc.list_value_length(pc.field("words")), 1),
    'pc.less(pc.list_value_length(pc.field("words")), pc.scalar(1))': (
        pc.less(pc.list_value_length(pc.field("words")), pc.scalar(1))
    ),
    'pc.list_value_length(ds.field("words")) == 0': pc.list_value_length(ds.field("words")) == 0,
    'pc.field("lang") == "en"': pc.field("lang") == "en",
    'field("lang") != "en"': pc.field("lang") != "en",
    '"en" != pyarrow.dataset.field("lang")': ds.field("lang") != "en",
    'pc.field("a") > 1': pc.field("a") > 1,
    '1 < pc.field("a")': pc.field("a") > 1,
    '1 <= pc.field("a")': pc.field("a") >= 1,
    'pc.field("b") >= -1': pc.field("b") >= -1,
    '~(pc.field("b") < 2)': ~(pc.field("b") < 2),
    'pc.not_equal(pc.field("a"), 2)': pc.not_equal(pc.field("a"), 2),
    'pc.less_equal(pc.field("b"), 2.0)': pc.less_equal(pc.field("b"), 2.0),
    'pc.less(x=pc.field("a"), y=2)': pc.less(pc.field("a"), 2),
    '(pc.field("a") > 1) & (pc.field("b") > 1)': (pc.field("a") > 1) & (pc.field("b") > 1),
    '(pc.field("a") > 1) | (pc.field("b") > 1)': (pc.field("a") > 1) | (pc.field("b") > 1),
    '~((pc.field("a") > 1) & (pc.field("b") > 1))': ~((pc.field("a") > 1) & (pc.field("b") > 1)),
    '~((pc.field("a") > 1) | (pc.field("b") > 1))': ~((pc.field("a") > 1) | (pc.field("b") > 1)),
    '(pc.field("a") > 1) & ~(pc.field("b").is_null())': (pc.field("a") > 1) & ~(pc.field("b").is_null()),
    'pc.invert(pc.field("a") == 2)': pc.invert(pc.field("a") == 2),
    'pc.and_kleene(pc.field("ok"), pc.or_kleene(pc.field("a") > 1, pc.field("b") > 1))': (
        pc.and_kleene(pc.field("ok"), pc.or_kleene(pc.field("a") > 1, pc.field("b") > 1))
    ),
    '~((pc.field("ok") | ~pc.field("b").is_null()) & ~(pc.field("a") > 1))': (
        ~((pc.field("ok") | ~pc.field("b").is_null()) & ~(pc.field("a") > 1))
    ),
    '~pc.and_kleene(pc.field("ok"), pc.or_kleene(pc.field("a") > 1, pc.field("b") > 1))': (
        ~pc.and_kleene(pc.field("ok"), pc.or_kleene(pc.field("a") > 1, pc.field("b") > 1))
    ),
    'pc.field("a").is_null()': pc.field("a").is_null(),
    '~pc.is_null(pc.field("a"))': ~pc.is_null(pc.field("a")),
    'pc.is_valid(pc.field("words"))': pc.is_valid(pc.field("words")),
    'pc.is_null(pc.list_value_length(pc.field("words")))': pc.is_null(pc.list_value_length(pc.field("words"))),
    'pc.field("lang").isin(["en", "ja"])': pc.field("lang").isin(["en", "ja"]),
    '~pc.field("lang").isin(["en", "ja"])': ~pc.field("lang").isin(["en", "ja"]),
    'pc.field("lang").isin(["en", None])': pc.field("lang").isin(["en", None]),
    '~pc.field("lang").isin(("en", None))': ~pc.field("lang").isin(("en", None)),
    'pc.is_in(pc.field("a"), pa.array([1, 2]))': pc.is_in(pc.field("a"), pa.array([1, 2])),
    'pc.is_in(pc.field("a"), value_set=pa.array([5]))': pc.is_in(pc.field("a"), value_set=pa.array([5])),
    'pc.list_value_length(pc.field("words")).isin([0, 5])': pc.list_value_length(pc.field("words")).isin([0, 5]),
    'pa.compute.greater(pa.compute.utf8_length(ds.field("text")), 1 + 2 * 2)': pc.greater(
        pc.utf8_length(ds.field("text")), 5
    ),
    'pc.list_value_length(pc.field("words")) <= 1_0 * 1 - 8': pc.list_value_length(pc.field("words")) <= 2,
    '[("a", "=", 2), ("lang", "!=", "en")]': pq.filters_to_expression([("a", "=", 2), ("lang", "!=", "en")]),
    '[("a", "==", 1)]': pq.filters_to_expression([("a", "==", 1)]),
    '[[("a", ">=", 3)], [("b", "<", 1), ("lang", "in", ["ja"])]]': pq.filters_to_expression(
        [[("a", ">=", 3)], [("b", "<", 1), ("lang", "in", ["ja"])]]
    ),
    '[("lang", "not in", ["en", "ja"])]': pq.filters_to_expression([("lang", "not in", ["en", "ja"])]),
    '[("lang", "in", ("en", None))]': pq.filters_to_expression([("lang", "in", ("en", None))]),
    'pc.field("ok")': pc.field("ok"),
    '~pc.field("ok")': ~pc.field("ok"),
    '(pc.field("ok") == False) | pc.field("lang").is_null()': (pc.field("ok") == False) | pc.field("lang").is_null(),  # noqa: E712
    'pc.field("lang") == "a \' quote and __import__"': pc.field("lang") == "a ' quote and __import__",
}
"""What a card says, and the expression that its text is."""


def kept(filters: list[FilterConfig]) -> list[int]:
    mask = row_mask(filters, TABLE, partitions={}, file="table")
    return [row for row, passed in enumerate(mask.tolist()) if passed]


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_the_same_rows_pass_as_in_pyarrow(text: str) -> None:
    assert kept(parse_filters(text, where="card")) == TABLE.filter(UNDERSTOOD[text])["row"].to_pylist()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('pc.field("a") > 1 and pc.field("b") > 1', '(pc.field("a") > 1) & (pc.field("b") > 1)'),
        ('pc.field("a") > 1 or not pc.field("b") > 1', '(pc.field("a") > 1) | ~(pc.field("b") > 1)'),
        ('~pc.and_(pc.field("ok"), pc.field("b") > 1)', '~(pc.field("ok") & (pc.field("b") > 1))'),
        ('~pc.or_(pc.field("ok"), pc.field("b") > 1)', '~(pc.field("ok") | (pc.field("b") > 1))'),
        ('  (pc.field("a")\n   > 1)\n', 'pc.field("a") > 1'),
    ],
)
def test_words_that_pyarrow_fails_on_mean_what_they_say(text: str, same: str) -> None:
    assert parse_filters(text, where="card") == parse_filters(same, where="card")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_no_text_is_no_filter(text: str) -> None:
    assert parse_filters(text, where="card") == []


@pytest.mark.parametrize("operator", ["&", "and"])
def test_outer_conditions_stand_alone_so_that_partitions_leave_files_unread(operator: str) -> None:
    text = f'(pc.field("split") == "train") {operator} (pc.field("a") > 1) {operator} (pc.field("b") > 1)'
    filters = parse_filters(text, where="card")
    assert [f.column for f in filters] == ["split", "a", "b"]
    assert passes_partitions(filters, {"split": "train"}) and not passes_partitions(filters, {"split": "test"})


def test_and_as_a_function_is_taken_apart_too() -> None:
    text = 'pc.and_(pc.and_(pc.field("split") == "train", pc.field("a") > 1), pc.field("lang") == "en")'
    assert [f.column for f in parse_filters(text, where="card")] == ["split", "a", "lang"]


HOSTILE = [
    "__import__('pathlib').Path('owned').touch()",
    "open('owned', 'w')",
    "pc.__class__.__base__.__subclasses__()",
    "pc.field('a').__class__",
    "(lambda: open('owned', 'w'))()",
    "[open('owned', 'w') for _ in (1,)]",
    "f\"{open('owned', 'w')}\"",
    "pc.field(open('owned', 'w').name) == 1",
    "pc.field('a') == open('owned', 'w').name",
    "pc.field('a').isin([open('owned', 'w')])",
    "pc.field('a').isin(open('owned', 'w') for _ in 'a')",
    "pc.field(f'{1}') == 1",
    "pc.call_function('add', [1, 2])",
    "pc.field('a').cast(pa.int8()) == 1",
    "(x := pc.field('a')) == 1",
    "pc.field('a') == 1 if True else pc.field('b') == 2",
    "pc.equal(*[pc.field('a'), 1])",
    "pc.equal(pc.field('a'), **{'y': 1})",
    "os.pc.field('a') == 1",
    "builtins.eval('1')",
    'exec(\'open("owned", "w")\')',
    "[('a', '=', open('owned', 'w'))]",
    "[('a', '=', 1), open('owned', 'w')]",
    "[]",
    "[[('a', '=', 1)], ('b', '=', 2)]",
    "pc.field('a') > 9 ** 9 ** 9",
    "pc.field('a') > 'x' * 99999999",
    "import os",
    "pc.field('a') == 1; open('owned', 'w')",
    "\x00",
    "(" * 3_000,
    "~" * 900 + "pc.field('a')",
    "pc.or_(" * 40 + "pc.field('a')" + ", pc.field('b'))" * 40,
    "-" * 5_000 + "1",
    "pc.field('a')" + ".b" * 3_000,
    "9" * 9_000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_else_it_holds_is_refused_and_not_run(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^card x: `filters`: ") as caught:
        parse_filters(text, where="card x: `filters`")
    assert not Path("owned").exists()
    assert len(str(caught.value).splitlines()) <= 3 and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('pc.greter(pc.field("a"), 1)', '`pc.greter(pc.field("a"), 1)` is not understood. Did you mean "greater"?'),
        ('pc.field("a").isnull()', '`pc.field("a").isnull` is not understood. Did you mean "is_null"?'),
        ('(pc.field("a") > 1) & (pc.field("b") > year)', "`year` is not understood. A value must be a text, a number"),
        ('[("a", "===", 1)]', '`"==="` is not understood. Did you mean "=="?'),
        ('[("a", ">")]', "It must be a triple of column, operator and value."),
        ('[("a", "=", None)]', "Nothing equals null"),
        ('pc.field("a") == None', "Nothing equals null: use is_null() or is_valid()."),
        ('pc.field("a") < pc.field("b")', "It must have a column on one side and a value on the other."),
        ("1 < 2", "It must have a column on one side"),
        ('0 < pc.field("a") < 3', "It must compare two sides by"),
        ('pc.field("a") in [1, 2]', "It must compare two sides by"),
        ('pc.is_null(pc.field("a"), nan_is_null=True)', "It must have 1 argument(s): values."),
        ('pc.field("a").is_null(True)', "It must have no argument(s)."),
        ('pc.field("a", "b") == 1', "It must have 1 argument(s): name."),
        ("pc.field(3) == 1", "`pc.field(3)` is not understood."),
        ('pc.field("a") == b"x"', "A value must be a text"),
        ('pc.field("a").isin("abc")', "Values to look for must be a list."),
        ('pc.list_value_length(pc.field("a"))', '`pc.list_value_length(pc.field("a"))` is not understood.\n'),
        ('pc.field("a") + 1 == 2', "It must have a column on one side"),
        ('pc.ascii_upper(pc.field("lang")) > 3', "It must have a column on one side"),
        ('pc.field("a") ==', "is not an expression: invalid syntax"),
    ],
)
def test_a_refusal_names_the_piece_and_what_is_understood(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        parse_filters(text, where="card")


def test_what_pyarrow_cannot_compare_is_told_with_the_column() -> None:
    for text in ('pc.field("a") == "much"', 'pc.field("words") > 3', 'pc.list_value_length(pc.field("a")) > 3'):
        with pytest.raises(DataError, match=r"table: filter on `(a|words)`"):
            kept(parse_filters(text, where="card"))


@pytest.mark.parametrize("value", ["train", "04"])
def test_values_of_partitions_are_text(value: Any) -> None:
    filters = parse_filters(f"pc.equal(pc.field('split'), '{value}')", where="card")
    assert passes_partitions(filters, {"split": value}) and not passes_partitions(filters, {"split": "4"})
