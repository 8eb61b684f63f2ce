"""From names, cards and paths of a recipe or a command line to an open dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fairseq2.recipe.base import RecipeContext

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import SourceConfig
from lexalcm.errors import CardError, ConfigError, DataError, LexalcmError
from lexalcm.recipes.config import ConceptDatasetSection, LcmTrainConfig
from lexalcm.recipes.curves import read_metrics
from lexalcm.recipes.dataset import open_dataset, open_named_dataset
from lexalcm.recipes.host import RecipeHost
from lexalcm.recipes.run import run_training
from tests.conftest import TINY_RUN
from tests.data.pairs import write_pairs
from tests.data.readers import write
from tests.recipes.acting import ActingRecipe


def open_section(folder: Path | None = None, **fields: Any) -> ConceptParquetDataset:
    """What a run opens whose recipe has this section; it also knows the cards in ``folder``."""
    opened: list[ConceptParquetDataset] = []

    def act(context: RecipeContext) -> None:
        opened.append(open_dataset(context.resolver, ConceptDatasetSection(**fields)))

    config = LcmTrainConfig()
    if folder is not None:
        config.common.assets.extra_paths = [folder]
    RecipeHost(ActingRecipe(act), no_rich=True).run(config, Path("unused"), record=False)
    return opened[0]


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """A folder of cards: two of Meta's and one of ours, beside their data."""
    for split, count in (("train", 5), ("validation", 3)):
        write(tmp_path / "wiki" / f"split={split}", [2] * count)
        write_pairs(tmp_path / "chat" / f"split={split}", [(2, 3)] * count)
    (tmp_path / "cards.yaml").write_text(
        f"""
name: wiki
parquet_path:
  s3: {tmp_path / "wiki"}
source_column: text_sentences_sonar_emb
source_text_column: text_sentences
---
name: chat
parquet_path: {{s3: {tmp_path / "chat"}}}
source_column: prompt_emb
source_text_column: prompt
target_column: answer_emb
target_text_column: answer
weight: 3
---
name: short_chat
base: chat
filters: pc.less(pc.list_value_length(pc.field("answer")), 3)
---
name: ours
dataset_family: concept_parquet
dataset_config: {{path: {tmp_path / "wiki"}, text_column: text_sentences}}
"""
    )
    return tmp_path


def test_a_card_of_metas_opens_by_its_name(cards: Path) -> None:
    dataset = open_section(cards, name="chat")
    assert dataset.is_supervised and dataset.splits == ["train", "validation"]
    first = next(dataset.documents("train"))
    assert first.num_source == 2 and first.sentences == ["p0.0", "p0.1", "a0.0", "a0.1", "a0.2"]


def test_a_card_inherits_from_its_base(cards: Path) -> None:
    assert list(open_section(cards, name="short_chat").documents()) == []


def test_names_mix_cards_of_both_kinds_by_split_and_weight(cards: Path) -> None:
    dataset = open_section(cards, name="wiki=train:2, ours=validation")
    sources = dataset.config.sources
    assert [(s.name, s.weight, s.only_split) for s in sources] == [
        ("wiki=train", 2.0, "train"),
        ("ours=validation", 1.0, "validation"),
    ]
    assert dataset.num_rows() == 8


def test_overrides_reach_every_card_of_a_mixture(cards: Path) -> None:
    dataset = open_section(cards, name="wiki,ours", config_overrides={"on_bad_rows": "skip", "text_column": None})
    assert dataset.config.on_bad_rows == "skip"
    assert {d.sentences for d in dataset.documents()} == {None}


def test_a_card_file_names_its_card_with_split_and_weight(tmp_path: Path) -> None:
    write(tmp_path / "data" / "split=train", [2] * 4)
    file = tmp_path / "my.yaml"
    file.write_text("name: my\nparquet_path: {local: data}\n")
    for name in (str(file), f"{file}=train:2"):
        assert open_section(name=name).num_rows() == open_named_dataset(name).num_rows() == 4


def test_a_name_on_the_command_line_is_a_path_where_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "split=train", [2] * 4)
    write(tmp_path / "data" / "split=train", [2] * 5)
    for name, rows in (("split=train", 4), ("data", 5), ("data/split=train", 5), ("./data", 5)):
        assert open_named_dataset(name).num_rows() == rows
    with pytest.raises(DataError, match=r"data/split=dev does not exist"):
        open_named_dataset("data/split=dev")


@pytest.mark.parametrize("name", ["nobody=train:0.5", "nobody:0.5", "nobody,no_one"])
def test_a_name_on_the_command_line_that_is_no_path_is_a_card(name: str) -> None:
    with pytest.raises(CardError, match=r'"nobody" is not a known card'):
        open_named_dataset(name)


def test_a_column_on_the_command_line_wins_over_the_cards(cards: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(f"name: one\nparquet_path: {cards / 'chat'}\nsource_column: prompt_emb\n")
    dataset = open_named_dataset(f"{file}=train", column="answer_emb")
    assert {len(d.concepts) for d in dataset.documents()} == {3}


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("parquet_path:\ns3: /data/wiki", "card.yaml: `parquet_path` must be .* is empty. Indent `s3:` below it."),
        ("parquet_path: x\nsource_colum: y", 'card.yaml has no field `source_colum`.*"source_column"'),
        ("parquet_pat: x", 'card mine is not a dataset\'s: .*Did you mean "parquet_path"'),
        ("model_family: lexalcm", "card mine is not a dataset's"),
        ("dataset_famly: concept_parquet", 'Did you mean "dataset_family"'),
        ("dataset_family: concept_parket", '"concept_parket" is not a known dataset family.*"concept_parquet"'),
        ("parquet_path: x\nfilters: __import__('os')", "card.yaml: `filters`: `__import__.*is not understood"),
        ("parquet_path: nowhere", "nowhere does not exist"),
    ],
)
def test_a_mistake_in_a_card_is_told_with_its_place(tmp_path: Path, card: str, told: str) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(f"name: mine\n{card}\n")
    with pytest.raises(LexalcmError, match=f"(?s){told}") as caught:
        open_section(name=str(file))
    assert len(str(caught.value).splitlines()) <= 3


def test_names_that_cannot_be_are_refused(cards: Path) -> None:
    with pytest.raises(ConfigError, match="`dataset.name`: `wiki=a-b` is not of the form"):
        open_section(cards, name="wiki=a-b")
    with pytest.raises(CardError, match=r'"wikki" is not a known card.*Did you mean "wiki"'):
        open_section(cards, name="wiki,wikki")
    with pytest.raises(ConfigError, match="has a `target_column`, but .* has none"):
        open_section(cards, name="wiki,chat")


def test_a_card_of_another_family_can_be_named_alone_only(tmp_path: Path) -> None:
    file = tmp_path / "card.yaml"
    file.write_text("name: mine\ndataset_family: instruction_finetuning\n")
    with pytest.raises(ConfigError, match="instruction_finetuning"):
        open_section(name=f"{file}:2")


def test_sources_of_a_recipe_may_have_targets(cards: Path) -> None:
    columns = {"embedding_column": "prompt_emb", "target_column": "answer_emb"}
    dataset = open_section(sources=[SourceConfig(path=str(cards / "chat"), **columns)])
    assert dataset.is_supervised


def test_a_run_trains_on_a_card_of_metas(tiny_corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "card.yaml"
    file.write_text(f"name: tiny\nparquet_path: {{s3: {tiny_corpus}}}\nsource_text_column: text_sentences\n")
    overrides = [f"dataset.name={file}", "dataset.path=null", *TINY_RUN, "regime.num_steps=4"]
    assert run_training("quickstart", tmp_path / "run", overrides=overrides, no_rich=True) == 0


def test_a_run_trains_on_targets_alone(cards: Path, tmp_path: Path) -> None:
    overrides = [
        "dataset.name=chat",
        "dataset.path=null",
        f"common.assets.extra_paths=[{cards / 'cards.yaml'}]",
        *TINY_RUN,
    ]
    overrides += ["model.config_overrides.concept_dim=4", "regime.num_steps=4", "dataset.reading.max_seq_len=8"]
    assert run_training("quickstart", tmp_path / "run", overrides=overrides, no_rich=True) == 0
    (step, *_) = read_metrics(tmp_path / "run" / "metrics" / "train.jsonl")
    assert step["Number of Target Elements"] == 5 * 3
