"""Broken and odd parquet sets: converted, they load with the documents of their source, or are refused as it would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lexalcm.data.dataset import ConceptParquetDataset, Document
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import DataError
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.plan import make_plan
from lexalcm.pipelines.convert.run import Conversion, convert
from tests.data.bad_data import MANIFEST, cases, needs_bad_data, place

WIDTH = MANIFEST["asked_for"].get("embedding_width")

pytestmark = [
    needs_bad_data,
    pytest.mark.filterwarnings("ignore::lexalcm.data.discover.DataWarning"),
]


def run(source: Path, output: Path, repair: str = "fail") -> Conversion:
    config = ConvertConfig(source=str(source), output=str(output), concept_dim=WIDTH, repair=repair)
    config.check()
    return convert(config, make_plan(config))


def documents(folder: Path, *, skip: bool = False) -> list[Document]:
    config = ConceptParquetConfig(
        path=str(folder),
        text_column="text_sentences",
        id_column="id",
        on_bad_rows="skip" if skip else "error",
        max_bad_share=1.0,
    )
    return list(ConceptParquetDataset(config).documents())


def told(document: Document) -> tuple[list[str], bytes]:
    return document.sentences or [], document.concepts.astype(np.float32).tobytes()


@pytest.mark.parametrize("case", cases("ok"))
def test_odd_sets_convert_and_load_with_the_same_documents(case: dict[str, Any], tmp_path: Path) -> None:
    source = place(case, tmp_path)
    assert run(source, tmp_path / "out").num_dropped == 0
    assert sorted(map(told, documents(tmp_path / "out"))) == sorted(map(told, documents(source)))
    if "partition_values" in case:
        rows = [row for f in (tmp_path / "out").rglob("*.parquet") for row in pq.ParquetFile(f).read().to_pylist()]
        found = {tuple(row[name] for name in case["partition_values"][0]) for row in rows}
        assert found == {tuple(values.values()) for values in case["partition_values"]}


@pytest.mark.parametrize("case", cases("row error"))
def test_bad_rows_stop_or_are_dropped(case: dict[str, Any], tmp_path: Path) -> None:
    source = place(case, tmp_path)
    with pytest.raises(DataError, match=r"row group \d+, row \d+: .*\n.*--repair drop"):
        run(source, tmp_path / "out")
    done = run(source, tmp_path / "out", "drop")
    assert (done.num_kept, done.num_dropped) == (case["documents_good"], case["documents"] - case["documents_good"])
    found = {(f.file, first(source / f.file, bad.row_group) + bad.row) for f in done.files for bad in f.bad}
    assert found == {(bad["file"], bad["row_in_file"]) for bad in case["bad_rows"]}
    assert sorted(map(told, documents(tmp_path / "out"))) == sorted(map(told, documents(source, skip=True)))


def first(file: Path, group: int) -> int:
    metadata = pq.read_metadata(file)
    return sum(metadata.row_group(i).num_rows for i in range(group))


@pytest.mark.parametrize("case", cases("dataset error"))
@pytest.mark.parametrize("repair", ["fail", "drop"])
def test_unusable_sets_are_refused_and_nothing_is_written(case: dict[str, Any], repair: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(place(case, tmp_path), tmp_path / "out", repair)
    where = case.get("where") or {}
    for name in ("file", "column"):
        if where.get(name):
            assert where[name] in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.parquet"))
