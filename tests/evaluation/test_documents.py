from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import DataError
from lexalcm.evaluation.documents import SplitDocuments, check_dim, chosen_split, training_documents


def corpus(root: Path, splits: dict[str, list[int]], dim: int = 4) -> ConceptParquetDataset:
    """Splits of documents of given lengths; a vector holds its split's, document's and own number."""
    for s, (split, lengths) in enumerate(splits.items()):
        docs = [
            np.stack([np.arange(dim) + (s + 1) * 100.0 + i * 10 + min(t, 9) for t in range(n)])
            for i, n in enumerate(lengths)
        ]
        write_documents(root / split / "a.parquet", [NewDocument(["x"] * len(d), d) for d in docs], dtype="float32")
    return ConceptParquetDataset(ConceptParquetConfig(path=str(root)))


def test_documents_come_cut_in_file_order_and_again(tmp_path: Path) -> None:
    dataset = corpus(tmp_path, {"split=train": [2], "split=validation": [3, 200, 1]})
    documents = SplitDocuments(dataset, "validation")
    for _ in range(2):
        assert [(len(d), d[0, 0]) for d in documents] == [(3, 200.0), (128, 210.0), (1, 220.0)]
    assert [len(d) for d in SplitDocuments(dataset, "validation", 2)] == [3, 128]
    assert sum(1 for _ in SplitDocuments(dataset, None)) == 4


def test_split_is_checked_and_all_means_every_file(tmp_path: Path) -> None:
    dataset = corpus(tmp_path, {"split=train": [2], "split=validation": [3]})
    assert chosen_split(dataset, "train") == "train" and chosen_split(dataset, "all") is None
    assert chosen_split(dataset, "val") == "val"
    with pytest.raises(DataError, match=r"--split tset`: it has train, validation\.\n.*--split all"):
        chosen_split(dataset, "tset")


def test_dataset_without_splits_says_how_to_take_it_whole(tmp_path: Path) -> None:
    dataset = corpus(tmp_path, {"": [3]})
    with pytest.raises(DataError, match="name no splits.\n.*--split all"):
        chosen_split(dataset, "validation")


def test_baselines_learn_from_train_and_never_from_what_is_measured(tmp_path: Path) -> None:
    dataset = corpus(tmp_path / "a", {"Train": [2, 5], "Val": [3]})
    found = training_documents(dataset, "validation")
    assert found is not None and [len(d) for d in found] == [2, 5]
    assert training_documents(dataset, "train") is None
    assert training_documents(dataset, None) is None
    assert training_documents(corpus(tmp_path / "b", {"split=validation": [3]}), "validation") is None


def test_other_data_for_baselines_gives_its_train_split_or_all_of_it(tmp_path: Path) -> None:
    dataset = corpus(tmp_path / "a", {"split=validation": [3]})
    split = corpus(tmp_path / "b", {"split=train": [2, 5], "split=test": [7]})
    whole = corpus(tmp_path / "c", {"": [6, 4]})
    for other, lengths in ((split, [2, 5]), (whole, [6, 4])):
        found = training_documents(dataset, "validation", other=other)
        assert found is not None and [len(d) for d in found] == lengths


def test_other_widths_are_told_with_both_sides(tmp_path: Path) -> None:
    dataset = corpus(tmp_path / "a", {"split=validation": [3]})
    other = corpus(tmp_path / "b", {"split=train": [3]}, dim=5)
    with pytest.raises(DataError, match="5 dimensions, .* have 4"):
        training_documents(dataset, "validation", other=other)
    with pytest.raises(DataError, match="6 dimensions, .* have 4"):
        check_dim(6, dataset)
    check_dim(4, dataset)
