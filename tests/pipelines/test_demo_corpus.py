"""The demo corpus: the same each time, no story in both splits, and readable as a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import ConfigError
from lexalcm.pipelines.demo_corpus import DemoCorpusConfig, write_demo_corpus
from lexalcm.pipelines.demo_grammar import Grammar

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


def test_an_interrupted_corpus_is_made_again(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > 6:  # validation is written, train is not
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo_corpus(tmp_path / "a", CONFIG, progress=interrupt)
    assert (tmp_path / "a" / "split=validation").is_dir() and not (tmp_path / "a" / "split=train").exists()
    assert not write_demo_corpus(tmp_path / "a", CONFIG).was_there
    assert len(read(tmp_path / "a", "train")) == 54


def test_files_have_the_layout_of_real_data(tmp_path: Path) -> None:
    write_demo_corpus(tmp_path, CONFIG)
    file = pq.ParquetFile(tmp_path / "split=train" / "part-00000.parquet")
    column = file.schema_arrow.field("text_sentences_sonar_emb").type
    assert pa.types.is_list(column) and column.value_type.list_size == 32
    assert column.value_type.value_type == pa.float16()
    assert {"id", "title", "lang", "text_sentences"} < set(file.schema_arrow.names)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    ids = [i for split in ("train", "validation") for i in ids_of(tmp_path, split)]
    assert len(set(ids)) == len(ids) == 60


def ids_of(folder: Path, split: str) -> list[str]:
    return pq.read_table(folder / f"split={split}" / "part-00000.parquet", columns=["id"])["id"].to_pylist()


def test_the_next_sentence_follows_from_the_last_but_does_not_resemble_it() -> None:
    rng, grammar = np.random.default_rng(0), Grammar()
    followers: dict[str, set[str]] = {}
    for _ in range(300):
        sentences = grammar.write_story(rng, "eng_Latn").sentences
        assert 6 <= len(sentences) <= 12 and len(set(sentences)) == len(sentences)
        for sentence, following in zip(sentences, sentences[1:]):
            followers.setdefault(sentence, set()).add(following)
    heat = {s for s in followers if s.startswith("Then ") and "water" in s}
    assert heat and all(" added salt" in f for s in heat for f in followers[s])
    seen_often = [followers[s] for s in followers if s.startswith("First the vegetables")]
    assert len(seen_often[0]) > 2  # an event left out or not, one variant or another


@pytest.mark.parametrize(
    "fields", [{"num_documents": 3}, {"dim": 1}, {"langs": ("deu_Latn",)}, {"num_documents": 10**6}]
)
def test_impossible_corpora_are_refused(tmp_path: Path, fields: dict) -> None:
    with pytest.raises(ConfigError):
        write_demo_corpus(tmp_path / "a", DemoCorpusConfig(**fields))
