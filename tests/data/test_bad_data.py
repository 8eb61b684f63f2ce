"""Broken and odd parquet sets: each must fail, be skipped or load as its manifest says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from lexalcm.data.dataset import ConceptParquetDataset, Document
from lexalcm.data.discover import DataWarning
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import DataError
from tests.data.bad_data import MANIFEST, cases, needs_bad_data, place, places

pytestmark = needs_bad_data


def read(folder: Path, *, skip: bool) -> tuple[list[Document], list[str]]:
    """Opens a set with all of its columns and reads every document; returns also what it warned of."""
    asked = MANIFEST["asked_for"]
    config = ConceptParquetConfig(
        path=str(folder),
        text_column="text_sentences" if "text_sentences" in asked["columns"] else None,
        id_column="id" if "id" in asked["columns"] else None,
        concept_dim=asked["embedding_width"],
        on_bad_rows="skip" if skip else "error",
        max_bad_share=1.0,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = ConceptParquetDataset(config)
        documents = list(dataset.documents())
    told = [str(w.message) for w in caught if issubclass(w.category, DataWarning)]
    return documents, told


@pytest.mark.parametrize("case", cases())
def test_each_set_behaves_as_its_manifest_says(case: dict[str, Any], tmp_path: Path) -> None:
    folder = place(case, tmp_path)
    if case["expected"] == "dataset error":
        check_dataset_error(case, folder)
    elif case["expected"] == "row error":
        check_row_errors(case, folder)
    else:
        check_ok(case, folder)


def check_dataset_error(case: dict[str, Any], folder: Path) -> None:
    for skip in (False, True):
        with pytest.raises(DataError) as caught:
            read(folder, skip=skip)
        message = str(caught.value)
        assert len(message.splitlines()) <= 3, message
        assert any(where.get("file") is None or where["file"] in message for where in places(case))
        for column in {where["column"] for where in places(case) if where.get("column")}:
            assert f"`{column}`" in message


def check_row_errors(case: dict[str, Any], folder: Path) -> None:
    bad = {(row["file"], row["row_in_file"]) for row in case["bad_rows"]}
    with pytest.raises(DataError) as caught:
        read(folder, skip=False)
    message = str(caught.value)
    assert any(file in message for file, _ in bad) and "row group" in message
    told = [
        f"{where['file']}: row group {where['row_group']}, row {where['row_in_group']}:"
        for where in places(case)
        if {"file", "row_group", "row_in_group"} <= where.keys()
    ]
    assert not told or any(text in message for text in told), message
    documents, _ = read(folder, skip=True)
    assert len(documents) == case["documents_good"]
    kept = {(Path(d.file).relative_to(folder).as_posix(), d.row) for d in documents}
    assert not kept & bad
    assert len(kept | bad) == case["documents"]


def check_ok(case: dict[str, Any], folder: Path) -> None:
    documents, told = read(folder, skip=False)
    if "documents_good" in case:
        assert len(documents) == case["documents_good"]
    assert all(d.sentences is not None and len(d.sentences) == len(d.concepts) for d in documents)
    if case.get("warn"):
        assert told and len(set(told)) == len(told), "a careful tool says a word, once"
    else:
        assert not told, told
    if "documents_with_concepts" in case:
        assert sum(len(d.concepts) > 0 for d in documents) == case["documents_with_concepts"]
    config = ConceptParquetConfig(path=str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        dataset = ConceptParquetDataset(config)
    for split, count in case.get("splits", {}).items():
        assert len(list(dataset.documents(split))) == count
    if "partition_values" in case:
        files = [f for source in dataset.files(None) for f in source.files]
        found = [dict(f.partitions) for f in files]
        assert all(any(values.items() <= f.items() for f in found) for values in case["partition_values"])
