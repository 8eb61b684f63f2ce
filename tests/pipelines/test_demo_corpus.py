"""The demo corpus: the same each time, no story in both splits, and readable as a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import ConfigError
from lexalcm.pipelines.demo_corpus import DemoCorpusConfig, write_demo_corpus

CONFIG = DemoCorpusConfig(num_documents=60, dim=32)


def read(folder: Path, split: str) -> list:
    return list(
        ConceptParquetDataset(ConceptParquetConfig(path=str(folder), text_column="text_sentences")).documents(split)
    )


def test_the_corpus_is_the_same_each_time_and_splits_share_no_story(tmp_path: Path) -> None:
    write_demo_corpus(tmp_path / "a", CONFIG)
    write_demo_corpus(tmp_path / "b", CONFIG)
    train, valid = read(tmp_path / "a", "train"), read(tmp_path / "a", "validation")
    assert len(train) == 54 and len(valid) == 6
    again = read(tmp_path / "b", "train")
    assert [d.sentences for d in train] == [d.sentences for d in again]
    assert all(np.array_equal(x.concepts, y.concepts) for x, y in zip(train, again))
    assert not {tuple(d.sentences) for d in train} & {tuple(d.sentences) for d in valid}
    assert any(not s.isascii() for s in train[1].sentences) and all(s.isascii() for s in train[0].sentences)


def test_what_is_there_is_kept_and_anything_else_refused(tmp_path: Path) -> None:
    assert not write_demo_corpus(tmp_path / "a", CONFIG).was_there
    assert write_demo_corpus(tmp_path / "a", CONFIG).was_there
    with pytest.raises(ConfigError, match="made in another way"):
        write_demo_corpus(tmp_path / "a", DemoCorpusConfig(num_documents=60, dim=16))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "precious.txt").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        write_demo_corpus(tmp_path / "b", CONFIG)


@pytest.mark.parametrize(
    "fields", [{"num_documents": 3}, {"dim": 1}, {"langs": ("deu_Latn",)}, {"num_documents": 10**6}]
)
def test_impossible_corpora_are_refused(tmp_path: Path, fields: dict) -> None:
    with pytest.raises(ConfigError):
        write_demo_corpus(tmp_path / "a", DemoCorpusConfig(**fields))
