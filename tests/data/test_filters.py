"""Row filters are data: they compare, and nothing else."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lexalcm.data.filters import FilterConfig, passes_partitions
from lexalcm.data.sources import ReadingConfig
from lexalcm.errors import ConfigError, DataError
from tests.data.numbered import fixed, nested, open_dataset, stands_right, write_table

HOSTILE = "__import__('pathlib').Path('owned').touch()"


def kept(folder: Path, column: str, operator: str, value: Any = None) -> list[int]:
    dataset = open_dataset(folder, filters=[FilterConfig(column=column, operator=operator, value=value)])
    documents = list(dataset.documents())
    assert all(stands_right(d) for d in documents)
    return [d.row for d in documents]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    days = [datetime.date(2024, 1, d) for d in range(1, 7)]
    return write_table(
        tmp_path / "d",
        pa.array(nested(), fixed(pa.float32())),
        lang=pa.array(["en", "ja", None, "en", "de", "ja"]).dictionary_encode(),
        score=[1.0, 2.0, 3.0, None, 5.0, 6.0],
        day=days,
    )


@pytest.mark.parametrize(
    "column, operator, value, rows",
    [
        ("lang", "==", "en", [0, 3]),
        ("lang", "!=", "en", [1, 4, 5]),
        ("lang", "in", ["ja", "de"], [1, 4, 5]),
        ("lang", "not in", ["ja", "de"], [0, 3]),
        ("lang", "is null", None, [2]),
        ("lang", "is not null", None, [0, 1, 3, 4, 5]),
        ("score", "<", 3, [0, 1]),
        ("score", "<=", 3.0, [0, 1, 2]),
        ("score", ">", 3, [4, 5]),
        ("score", ">=", 3, [2, 4, 5]),
        ("day", ">=", "2024-01-05", [4, 5]),
        ("day", "==", datetime.date(2024, 1, 2), [1]),
        ("day", "in", ["2024-01-05", "2024-01-01"], [0, 4]),
        ("day", "not in", [datetime.date(2024, 1, 1)], [1, 2, 3, 4, 5]),
        ("lang", "in", [], []),
        ("lang", "not in", [None, "en"], [1, 4, 5]),
        ("lang", "==", HOSTILE, []),
    ],
)
def test_rows_pass_by_comparison(folder: Path, column: str, operator: str, value: Any, rows: list[int]) -> None:
    assert kept(folder, column, operator, value) == rows


def test_several_filters_must_all_pass(folder: Path) -> None:
    filters = [FilterConfig(column="lang", value="ja"), FilterConfig(column="score", operator=">", value=2)]
    assert [d.row for d in open_dataset(folder, filters=filters).documents()] == [5]


def test_a_bad_row_that_a_filter_leaves_out_is_no_error(tmp_path: Path) -> None:
    documents = nested()
    documents[1] = None
    folder = write_table(tmp_path, pa.array(documents, fixed(pa.float32())), lang=["en", "ja", "en", "en", "en", "en"])
    assert kept(folder, "lang", "==", "en") == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "operator, value, passes",
    [
        ("==", "04", True),
        ("==", 4, False),
        ("in", ["04", "05"], True),
        ("not in", ["04"], False),
        ("is null", None, False),
        (">", "03", True),
    ],
)
def test_partition_values_are_text(operator: str, value: Any, passes: bool) -> None:
    filters = [FilterConfig(column="month", operator=operator, value=value)]
    assert passes_partitions(filters, {"month": "04", "lang": None}) is passes


def test_a_number_selects_the_partition_that_is_written_alike() -> None:
    assert passes_partitions([FilterConfig(column="year", value=2024)], {"year": "2024"})


def test_the_null_partition_passes_null_tests_alone() -> None:
    assert passes_partitions([FilterConfig(column="lang", operator="is null")], {"lang": None})
    assert not passes_partitions([FilterConfig(column="lang", operator="!=", value="en")], {"lang": None})


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"column": "lang", "operator": "="}, "not a known operator"),
        ({"column": "lang", "operator": "is not nul"}, 'Did you mean "is not null"'),
        ({"column": "lang", "operator": "not in", "value": "en"}, "needs a list"),
        ({"column": "lang", "operator": "<", "value": {"a": 1}}, "needs one value"),
        ({"column": 3}, "name of a column"),
        ({"column": "lang", "operator": "eval", "value": "1"}, "not a known operator"),
        ({"column": "lang", "operator": "in", "value": "en"}, "needs a list"),
        ({"column": "lang", "operator": "==", "value": ["en"]}, "needs one value"),
        ({"column": "lang", "operator": "=="}, "is null"),
        ({"column": ""}, "name of a column"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_dataset(folder, filters=[FilterConfig(**fields)])


def test_text_where_a_list_of_filters_belongs_is_refused_and_not_run(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="never evaluated"):
        open_dataset(folder, filters=HOSTILE)
    assert not Path("owned").exists()


def test_an_unknown_column_is_an_error_with_the_near_match(folder: Path) -> None:
    with pytest.raises(DataError, match=r'no column `langs`.*Did you mean "lang"'):
        open_dataset(folder, filters=[FilterConfig(column="langs", value="en")])


@pytest.mark.parametrize("column, value", [("score", "much"), ("lang", 3), ("lang", 10**30), ("text_sentences", "x")])
def test_values_that_cannot_be_compared_are_an_error(folder: Path, column: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"filter on `{column}`"):
        kept(folder, column, "==", value)


def test_filters_that_leave_no_file_are_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "lang=en", pa.array(nested(), fixed(pa.float32())))
    with pytest.raises(DataError, match=r"no file that its `filters` on lang let pass"):
        list(open_dataset(tmp_path, filters=[FilterConfig(column="lang", value="fr")]).documents())


@pytest.mark.parametrize("value", [HOSTILE, "${HOME}", "en' or '1'=='1", "*", ".*", "", "\x00", "%s{0}"])
def test_hostile_text_is_a_value_like_any_other(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lang = ["en", value, "en", "en", value, "en"]
    folder = write_table(tmp_path / "d", pa.array(nested(), fixed(pa.float32())), lang=lang)
    assert kept(folder, "lang", "==", value) == kept(folder, "lang", "in", [value]) == [1, 4]
    assert kept(folder, "lang", "!=", value) == [0, 2, 3, 5]
    assert not Path("owned").exists()


def test_a_filter_on_a_partition_and_one_on_a_column_work_together(tmp_path: Path) -> None:
    for lang in ("en", "ja", "__HIVE_DEFAULT_PARTITION__"):
        embeddings = pa.array(nested(), fixed(pa.float32()))
        write_table(tmp_path / f"lang={lang}", embeddings, score=[1, 2, 3, None, 5, 6])
    filters = [
        FilterConfig(column="lang", operator="!=", value="en"),
        FilterConfig(column="score", operator=">", value=2),
    ]
    documents = list(open_dataset(tmp_path, filters=filters).documents())
    assert [d.row for d in documents] == [2, 4, 5] and all("lang=ja" in d.id for d in documents)


def test_a_filter_leaves_other_documents_under_their_own_rows(tmp_path: Path) -> None:
    folder = write_table(tmp_path, pa.array(nested(), fixed(pa.float16())), lang=list("abababab")[:6], per_group=4)
    reader = open_dataset(folder, filters=[FilterConfig(column="lang", value="b")]).create_reader(None, ReadingConfig())
    rows = []
    for (batch,) in reader:
        assert batch.ids is not None
        assert (batch.concepts[:, 0].numpy() == np.repeat(batch.ids.row, batch.layout.lengths) + 1).all()
        rows += batch.ids.row.tolist()
    assert sorted(rows) == [1, 3, 5]


def condition(column: str, operator: str, value: Any = None, **fields: Any) -> FilterConfig:
    return FilterConfig(column=column, operator=operator, value=value, **fields)


JA, FEW = condition("lang", "==", "ja"), condition("score", "<", 3)


@pytest.mark.parametrize(
    "group, rows",
    [
        # lang: en ja null en de ja; score: 1 2 3 null 5 6
        (FilterConfig(all_of=[JA, FEW]), [1]),
        (FilterConfig(any_of=[JA, FEW]), [0, 1, 5]),
        (FilterConfig(none_of=[JA]), [0, 3, 4]),
        (FilterConfig(none_of=[JA, FEW]), [4]),
        # A null is neither: what the other side decides is decided.
        (FilterConfig(any_of=[FEW, condition("lang", "is null")]), [0, 1, 2]),
        (FilterConfig(none_of=[FilterConfig(all_of=[JA, condition("score", ">", 2)])]), [0, 1, 3, 4]),
        (FilterConfig(none_of=[FilterConfig(none_of=[JA])]), [1, 5]),
        (FilterConfig(none_of=[condition("lang", "in", ["ja"])]), [0, 3, 4]),
        (FilterConfig(none_of=[condition("lang", "not in", ["ja"])]), [1, 5]),
    ],
)
def test_groups_decide_by_kleenes_logic(folder: Path, group: FilterConfig, rows: list[int]) -> None:
    assert [d.row for d in open_dataset(folder, filters=[group]).documents()] == rows


def test_lengths_of_lists_are_compared(folder: Path) -> None:
    # LENGTHS are 3, 2, 4, 1, 5, 2.
    for column in ("text_sentences", "text_sentences_sonar_emb"):
        many = [condition(column, ">", 2, function="length")]
        assert [d.row for d in open_dataset(folder, filters=many).documents()] == [0, 2, 4]
    two = [condition("text_sentences", "in", [2, 1], function="length")]
    assert [d.row for d in open_dataset(folder, filters=two).documents()] == [1, 3, 5]


def test_a_length_that_is_none_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="filter on `score`: 2 cannot be compared with the length of double"):
        list(open_dataset(folder, filters=[condition("score", ">", 2, function="length")]).documents())
    folder = write_table(tmp_path / "e" / "lang=en", pa.array(nested(), fixed(pa.float32())))
    with pytest.raises(DataError, match="length of `lang`, which is a partition's text"):
        open_dataset(folder.parent, filters=[condition("lang", ">", 2, function="length")])


def test_a_group_of_partitions_alone_decides_whole_files_and_a_mixed_one_their_rows(tmp_path: Path) -> None:
    for lang in ("en", "ja", "de"):
        write_table(tmp_path / f"lang={lang}", pa.array(nested(), fixed(pa.float32())), score=[1, 2, 3, None, 5, 6])
    some = FilterConfig(any_of=[condition("lang", "==", "en"), condition("lang", "==", "de")])
    (source,) = open_dataset(tmp_path, filters=[some]).files(None)
    assert [f.partitions["lang"] for f in source.files] == ["de", "en"]
    mixed = FilterConfig(any_of=[condition("lang", "==", "en"), condition("score", ">", 5)])
    found = [(d.id.split("=")[1][:2], d.row) for d in open_dataset(tmp_path, filters=[some, mixed]).documents()]
    assert found == [("de", 5), *(("en", row) for row in range(6))]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"column": "lang", "value": 1, "function": "lenght"}, 'Did you mean "length"'),
        ({"column": "lang", "any_of": [JA]}, "`any_of` stands alone"),
        ({"any_of": [JA], "none_of": [JA]}, "stands alone"),
        ({"any_of": [{"column": "lang", "value": "ja"}]}, "`any_of` must be a list of filters"),
        ({"all_of": [FilterConfig(column="lang", operator="=")]}, "not a known operator"),
        ({}, "name of a column"),
    ],
)
def test_a_group_that_means_nothing_is_refused(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_dataset(folder, filters=[FilterConfig(**fields)])


def test_an_unknown_column_inside_a_group_is_an_error_with_the_near_match(folder: Path) -> None:
    with pytest.raises(DataError, match=r'no column `langs`.*Did you mean "lang"'):
        open_dataset(folder, filters=[FilterConfig(none_of=[JA, condition("langs", "==", "en")])])


def test_groups_are_plain_data_that_fairseq2_structures() -> None:
    from fairseq2.runtime.dependency import get_dependency_resolver
    from fairseq2.utils.structured import ValueConverter

    converter = get_dependency_resolver().resolve(ValueConverter)
    config = FilterConfig(none_of=[FilterConfig(any_of=[JA, condition("words", ">", 2, function="length")])])
    assert converter.structure(converter.unstructure(config), FilterConfig) == config
    given = {"any_of": [{"column": "lang", "value": "ja"}, {"none_of": [{"column": "score", "value": 2}]}]}
    assert converter.structure(given, FilterConfig).describe() == "any_of (lang == 'ja', none_of (score == 2))"
