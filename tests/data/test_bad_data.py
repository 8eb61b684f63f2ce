"""Broken and odd parquet sets, found by listing a folder: each must fail, be skipped or load as its manifest says.

``LEXALCM_BAD_DATA`` names the folder (default: ``shared/data/bad_parquet`` beside the repository) with its
``MANIFEST.json``; another set laid out alike runs without a change here.
"""

from __future__ import annotations

import json
import os
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pytest

from lexalcm.data.dataset import ConceptParquetDataset, Document
from lexalcm.data.discover import DataWarning
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import DataError

FOLDER = Path(os.environ.get("LEXALCM_BAD_DATA", Path(__file__).parents[3] / "shared" / "data" / "bad_parquet"))


def load_manifest() -> dict[str, Any]:
    file = FOLDER / "MANIFEST.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"cases": [], "asked_for": {}}


MANIFEST = load_manifest()
CASES = [pytest.param(case, id=case["name"]) for case in MANIFEST["cases"]]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no MANIFEST.json in {FOLDER} (set LEXALCM_BAD_DATA)")


def place(case: dict[str, Any], tmp_path: Path) -> Path:
    """The case's folder, made here where the manifest only says how."""
    if case.get("stored", True):
        return FOLDER / case["path"]
    archive = FOLDER / f"{case['name']}.tar"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path, filter="data")
        inner = tmp_path / case["name"]
        return inner if inner.is_dir() else tmp_path
    if "symlink" in case["how_to_make"]:
        folder = tmp_path / "d"
        folder.mkdir()
        (folder / "good.parquet").write_bytes((FOLDER / "stray_files" / "part-00000.parquet").read_bytes())
        os.symlink(".", folder / "again")
        return folder
    pytest.fail(f"cannot make {case['name']}: {case['how_to_make']}")


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


def places(case: dict[str, Any]) -> list[dict[str, Any]]:
    where = case.get("where") or {}
    return where if isinstance(where, list) else [where]


@pytest.mark.parametrize("case", CASES)
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
        assert any(place.get("file") is None or place["file"] in message for place in places(case))
        for column in {place["column"] for place in places(case) if place.get("column")}:
            assert f"`{column}`" in message


def check_row_errors(case: dict[str, Any], folder: Path) -> None:
    bad = {(row["file"], row["row_in_file"]) for row in case["bad_rows"]}
    with pytest.raises(DataError) as caught:
        read(folder, skip=False)
    message = str(caught.value)
    assert any(file in message for file, _ in bad) and "row group" in message
    told = [
        f"{place['file']}: row group {place['row_group']}, row {place['row_in_group']}:"
        for place in places(case)
        if {"file", "row_group", "row_in_group"} <= place.keys()
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
