"""Files damaged at random: no crash, no hang, no memory blow-up, and never a vector under the wrong row."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.errors import DataError
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.run import verify
from tests.data.numbered import open_dataset, stands_right, vectors

ROOT = Path(__file__).parents[2]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="each damaged file is read in a forked process")


def fuzz(first: int, count: int, folder: Path, *, timeout: int) -> None:
    words = [sys.executable, "-m", "tests.data.fuzzing", str(first), str(count), str(folder)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT, timeout=timeout)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-1000:]}"


@needs_fork
def test_damaged_files_end_in_our_error_or_in_order(tmp_path: Path) -> None:
    fuzz(0, 24, tmp_path, timeout=300)


@needs_fork
@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_thousands_of_damaged_files_end_in_our_error_or_in_order(part: int, tmp_path: Path) -> None:
    fuzz(1_000 + 1_000 * part, 1_000, tmp_path, timeout=1_200)


LEAVES = st.sampled_from([pa.float16(), pa.float32(), pa.float64(), pa.int32(), pa.string(), pa.null()])


def lists_of(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda kind: pa.list_(kind, 4)),
        inner.map(lambda kind: pa.struct([("a", kind)])),
    )


SCHEMAS = st.one_of(LEAVES, lists_of(LEAVES), lists_of(lists_of(LEAVES)), lists_of(lists_of(lists_of(LEAVES))))


@given(kind=SCHEMAS, seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_column_of_any_type_is_read_or_refused_by_name(kind: pa.DataType, seed: int, tmp_path: Path) -> None:
    table = pa.table({EMBEDDING_COLUMN: pa.array([sample(kind, seed + row) for row in range(5)], kind)})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=2)
    try:
        list(open_dataset(tmp_path, on_bad_rows="skip", max_bad_share=1.0).documents())
    except DataError as error:
        assert len(str(error).splitlines()) <= 3
        assert "p.parquet" in str(error) or "width of a vector is not known" in str(error)
    verify(VerifyConfig(data=ConceptParquetConfig(path=str(tmp_path))))


def sample(kind: pa.DataType, seed: int) -> Any:
    """A value of a type; every third is null."""
    if seed % 3 == 2 or kind == pa.null():
        return None
    if pa.types.is_struct(kind):
        return {"a": sample(kind.field(0).type, seed + 1)}
    if pa.types.is_nested(kind):
        count = kind.list_size if pa.types.is_fixed_size_list(kind) else seed % 4
        return [sample(kind.value_type, seed + i) for i in range(count)]
    return str(seed) if kind == pa.string() else seed


DOCUMENTS = st.lists(
    st.one_of(st.none(), st.lists(st.sampled_from(["good", "null", "short", "nan", "zero", "hole"]), max_size=5)),
    min_size=1,
    max_size=9,
)


@given(documents=DOCUMENTS, per_group=st.integers(1, 5), large=st.booleans(), leaf=st.sampled_from([16, 32, 64]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_any_mix_of_good_and_bad_vectors_the_good_documents_come_in_place(
    documents: list[list[str] | None], per_group: int, large: bool, leaf: int, tmp_path: Path
) -> None:
    rows = [None if d is None else [spoilt(i, j, what) for j, what in enumerate(d)] for i, d in enumerate(documents)]
    outer = pa.large_list if large else pa.list_
    kind = outer(pa.list_({16: pa.float16(), 32: pa.float32(), 64: pa.float64()}[leaf]))
    pq.write_table(pa.table({EMBEDDING_COLUMN: pa.array(rows, kind)}), tmp_path / "p.parquet", row_group_size=per_group)
    dataset = open_dataset(tmp_path, on_bad_rows="skip", max_bad_share=1.0, concept_dim=4)
    good = [i for i, d in enumerate(documents) if d is not None and set(d) <= {"good"}]
    try:
        found = list(dataset.documents())
    except DataError as error:
        # Where every vector of a chunk is too short, the file has another width.
        assert "wide" in str(error) and any("short" in d for d in documents if d)
        return
    assert [d.row for d in found] == good
    assert all(stands_right(d) and len(d.concepts) == len(documents[d.row] or []) for d in found)


def spoilt(document: int, sentence: int, what: str) -> list[float | None] | None:
    vector: list[float | None] = vectors(document, sentence + 1)[sentence].tolist()
    return {
        "good": vector,
        "null": None,
        "short": vector[:3],
        "nan": [*vector[:3], float("nan")],
        "zero": [0.0] * 4,
        "hole": [None, *vector[1:]],
    }[what]
