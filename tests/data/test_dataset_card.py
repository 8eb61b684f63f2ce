"""A dataset's card says how the data came about and moves with it."""

from __future__ import annotations

from pathlib import Path

from lexalcm.data.dataset_card import write_dataset_card
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.recipes.dataset import open_named_dataset
from lexalcm.yaml_text import parse_yaml
from tests.data.numbered import texts, vectors


def test_the_card_opens_the_folder_it_lies_in_from_anywhere(tmp_path: Path) -> None:
    documents = [NewDocument(t, vectors(i, len(t)), {"id": str(i)}) for i, t in enumerate(texts())]
    write_documents(tmp_path / "a" / "split=train" / "p.parquet", documents)
    write_dataset_card(tmp_path / "a", name="wiki", config={"text_column": "text_sentences"}, facts={})
    (tmp_path / "a").rename(tmp_path / "b")
    dataset = open_named_dataset(str(tmp_path / "b" / "dataset.yaml"))
    assert [d.sentences for d in dataset.documents("train")] == texts()


def test_facts_are_kept_as_they_are(tmp_path: Path) -> None:
    facts = {"encoder": {"name": "\u65e5\u672c\u8a9e", "dim": 8, "tokenizer": None}, "splits": ["train", "off"]}
    file = write_dataset_card(tmp_path, name="wiki", config={"concept_dim": 8}, facts=facts)
    (card,) = parse_yaml(file.read_text(encoding="utf-8"))
    assert card == {
        "name": "wiki",
        "dataset_family": "concept_parquet",
        "dataset_config": {"path": ".", "concept_dim": 8},
        "made_by": facts,
    }
    assert [f.name for f in tmp_path.iterdir()] == ["dataset.yaml"]


def test_a_card_is_called_as_its_folder(tmp_path: Path) -> None:
    (tmp_path / "wiki, 2nd=try").mkdir()
    file = write_dataset_card(tmp_path / "wiki, 2nd=try", config={}, facts={})
    assert parse_yaml(file.read_text(encoding="utf-8"))[0]["name"] == "wiki__2nd_try"
