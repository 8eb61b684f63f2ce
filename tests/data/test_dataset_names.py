"""Names such as ``wiki=train:2, books`` are cards, splits and weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.dataset_names import DatasetName, join_datasets, parse_dataset_names
from lexalcm.data.sources import ConceptParquetConfig, SourceConfig
from lexalcm.errors import ConfigError, DataError
from tests.data.readers import reading, write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wiki", DatasetName("wiki")),
        ("wiki=train", DatasetName("wiki", "train")),
        ("wiki:0.5", DatasetName("wiki", None, 0.5)),
        ("wiki=train:2", DatasetName("wiki", "train", 2.0)),
        ("wiki=:2", DatasetName("wiki", None, 2.0)),
        ("my-wiki", DatasetName("my-wiki")),
        ("cards/my.yaml=train:1.25", DatasetName("cards/my.yaml", "train", 1.25)),
    ],
)
def test_a_name_has_a_split_and_a_weight_if_it_likes(text: str, expected: DatasetName) -> None:
    assert parse_dataset_names(text) == [expected]


def test_commas_join_several() -> None:
    names = parse_dataset_names("wiki=train:2, books,poems:0.5")
    assert [(n.label, n.weight) for n in names] == [("wiki=train", 2.0), ("books", None), ("poems", 0.5)]


@pytest.mark.parametrize(
    "text", ["", "wiki,", "x=a-b", "x:1e3", "x:-1", "x:0", "x:.5", "x:2:3", "x=a=b", "=a", "a b", "x:nan"]
)
def test_a_bad_name_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ConfigError, match="is not of the form card, card=split, card:weight or card=split:weight"):
        parse_dataset_names(text)


def join(text: str, *configs: ConceptParquetConfig, weights: list[float | None] | None = None) -> ConceptParquetConfig:
    return join_datasets(list(zip(parse_dataset_names(text), configs)), weights or [None] * len(configs))


def plain(path: str, **fields: Any) -> ConceptParquetConfig:
    return ConceptParquetConfig(path=path, **fields)


def test_a_lone_dataset_stays_what_it_is_whatever_its_weight() -> None:
    config = plain("a", text_column="t")
    assert join("wiki:2", config) is config


def test_columns_and_filters_stay_with_their_dataset() -> None:
    pairs = plain("x", embedding_column="e", target_column="t")
    first, second = join("a,b", pairs, plain("y", text_column="s")).sources
    assert (first.path, first.embedding_column, first.target_column, first.text_column) == ("x", "e", "t", None)
    assert (second.path, second.target_column, second.text_column) == ("y", None, "s")
    assert (first.name, second.name) == ("a", "b")


def test_without_weights_datasets_are_joined() -> None:
    assert [s.weight for s in join("a=train,b", plain("x"), plain("y")).sources] == [None, None]


def test_a_weight_in_the_name_wins_and_one_counts_where_none_is_given(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fairseq2"):
        joined = join("a:0.5,b,c=dev", plain("x"), plain("y"), plain("z"), weights=[3.0, 2.0, None])
    assert [s.weight for s in joined.sources] == [0.5, 2.0, 1.0]
    assert "weights: a 0.5, b 2, c=dev 1 (none given)" in caplog.text


def test_a_dataset_of_several_sources_shares_its_weight_among_them() -> None:
    both = ConceptParquetConfig(sources=[SourceConfig(path="x", weight=1.0), SourceConfig(path="y", weight=3.0)])
    joined = join("a:2,b:1", both, plain("z"))
    assert [(s.name, s.weight) for s in joined.sources] == [("a/x", 0.5), ("a/y", 1.5), ("b", 1.0)]
    alone = join("a=train", both)
    assert [(s.weight, s.only_split) for s in alone.sources] == [(1.0, "train"), (3.0, "train")]


def test_a_joined_dataset_has_no_weight_in_a_mixture() -> None:
    both = ConceptParquetConfig(sources=[SourceConfig(path="x"), SourceConfig(path="y")])
    with pytest.raises(ConfigError, match="a joins 2 sources without weights"):
        join("a:2,b", both, plain("z"))


def test_settings_of_the_whole_must_agree() -> None:
    with pytest.raises(ConfigError, match=r"the cards have error, skip for `on_bad_rows`.*`dataset.config_overrides`"):
        join("a,b", plain("x"), plain("y", on_bad_rows="skip"))
    joined = join("a,b", plain("x", concept_dim=4, on_bad_rows="skip"), plain("y", on_bad_rows="skip"))
    assert (joined.concept_dim, joined.on_bad_rows) == (4, "skip")


@pytest.fixture
def wiki(tmp_path: Path) -> ConceptParquetConfig:
    for split, count in (("train", 5), ("Val", 3)):
        write(tmp_path / "wiki" / (f"split={split}" if split == "train" else split), [2] * count)
    return plain(str(tmp_path / "wiki"))


def test_a_split_in_the_name_is_all_there_is(wiki: ConceptParquetConfig) -> None:
    for split, rows in (("train", 5), ("validation", 3), ("val", 3)):
        dataset = ConceptParquetDataset(join(f"wiki={split}", wiki))
        assert dataset.num_rows() == len(list(dataset.documents())) == len(list(dataset.documents(split))) == rows
        assert {d.id.split(":")[0] for d in dataset.documents()} == {f"wiki={split}"}
    with pytest.raises(DataError, match=r"no files for the split `train`; splits found: validation"):
        dataset.files("train")


def test_a_split_that_is_not_there_is_told_with_those_that_are(wiki: ConceptParquetConfig) -> None:
    with pytest.raises(DataError, match=r"wiki=dev: .* has no split `dev`; it has train, validation"):
        ConceptParquetDataset(join("wiki=dev", wiki))


def test_a_mixture_of_splits_is_read_as_far_as_names_say(wiki: ConceptParquetConfig) -> None:
    dataset = ConceptParquetDataset(join("wiki=train:2,wiki=val:1", wiki, wiki))
    with pytest.raises(DataError, match=r"wiki=val has a weight.*\n.*`dataset.train_split: null`"):
        dataset.create_reader("train", reading())
    reader = dataset.create_reader(None, reading())
    names = [name for batches in reader for batch in batches for name in batch.ids.names()]
    assert {name.split(":")[0] for name in names} == {"wiki=train", "wiki=val"}
