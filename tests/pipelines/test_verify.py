"""What a check finds in small files made for it, beyond the broken sets that lie in a folder."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.filters import FilterConfig
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig, SourceConfig
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.verify import rows as verify_rows
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.problems import Problem
from lexalcm.pipelines.verify.run import Verified, verify

DIM = 16
VECTORS = pa.list_(pa.list_(pa.float32(), DIM))


def documents(count: int, *, seed: int, dim: int = DIM) -> list[Any]:
    """Of 2 to 4 vectors each."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(int(rng.integers(2, 5)), dim)).astype(np.float32).tolist() for _ in range(count)]


def table(
    vectors: Sequence[Any], *, texts: Any = None, kind: pa.DataType = VECTORS, name: str = "d", **more: Any
) -> pa.Table:
    """One row a document, with texts and ids that are all different unless given."""
    if texts is None:
        texts = [[f"{name} {i} {j}" for j in range(len(d or []))] for i, d in enumerate(vectors)]
    columns = {
        "id": pa.array([f"{name}-{i}" for i in range(len(vectors))]),
        TEXT_COLUMN: pa.array(texts, pa.list_(pa.string())),
        EMBEDDING_COLUMN: pa.array(vectors, kind),
    }
    return pa.table({**columns, **more})


def write(path: Path, content: pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, **options)
    return path


def check(
    path: Path,
    *,
    num_workers: int = 2,
    split: str | None = None,
    max_length: int = 250,
    needs_text: bool = False,
    **fields: Any,
) -> Verified:
    data = fields.pop("data", None) or ConceptParquetConfig(path=str(path), **fields)
    return verify(
        VerifyConfig(data=data, num_workers=num_workers, split=split, max_length=max_length, needs_text=needs_text)
    )


def told(verified: Verified) -> dict[str, list[Problem]]:
    return dict(verified.findings.first)


def places(problems: Sequence[Problem]) -> list[tuple[str | None, int | None]]:
    return [(p.file, p.row_in_file) for p in problems]


def damage(path: Path, group: int, column: str) -> None:
    """Overwrites the start of one row group's page."""
    metadata = pq.read_metadata(path)
    chunks = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
    start = next(c.data_page_offset for c in chunks if c.path_in_schema.split(".")[0] == column)
    content = bytearray(path.read_bytes())
    content[start + 30 : start + 60] = bytes(30)
    path.write_bytes(content)


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
def test_a_damaged_page_is_one_problem_and_all_other_rows_are_checked(tmp_path: Path, codec: str) -> None:
    vectors = documents(40, seed=1)
    vectors[25][0][3] = float("nan")
    vectors[35][0][3] = float("nan")
    file = write(tmp_path / "a.parquet", table(vectors), row_group_size=10, compression=codec, use_dictionary=False)
    damage(file, 2, EMBEDDING_COLUMN)
    found = check(tmp_path)
    (damaged,) = told(found)["unreadable_rows"]
    assert (damaged.file, damaged.row_group, damaged.column) == ("a.parquet", 2, EMBEDDING_COLUMN)
    assert places(told(found)["not_finite"]) == [("a.parquet", 35)]
    assert found.totals.num_checked == 30 and found.totals.num_documents == 40


def test_a_damaged_text_column_leaves_its_vectors_checked(tmp_path: Path) -> None:
    vectors = documents(20, seed=1)
    vectors[15][1] = [0.0] * DIM
    file = write(tmp_path / "a.parquet", table(vectors), row_group_size=10, compression="zstd", use_dictionary=False)
    damage(file, 1, TEXT_COLUMN)
    found = check(tmp_path)
    assert [p.column for p in told(found)["unreadable_rows"]] == [TEXT_COLUMN]
    assert places(told(found)["zero_vector"]) == [("a.parquet", 15)]


def test_damage_in_a_column_that_training_never_reads_is_told(tmp_path: Path) -> None:
    extra = pa.array([np.random.default_rng(i).bytes(40).hex() for i in range(20)])
    content = table(documents(20, seed=1), title=extra)
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    file = write(tmp_path / "a.parquet", content, row_group_size=10, **options)
    damage(file, 0, "title")
    found = check(tmp_path)
    assert [(p.row_group, p.column) for p in told(found)["unreadable_rows"]] == [(0, "title")]
    assert found.totals.num_checked == 20


@pytest.mark.parametrize("num_groups", [1, 4])
def test_row_groups_in_pieces_and_many_threads_find_the_same(
    tmp_path: Path, num_groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = documents(80, seed=2)
    vectors[7][1] = None
    vectors[33] = None
    vectors[61][0] = [float("inf")] * DIM
    vectors[79] = vectors[5]
    write(tmp_path / "a.parquet", table(vectors), row_group_size=80 // num_groups)
    whole = check(tmp_path, num_workers=1)
    monkeypatch.setattr(verify_rows, "_STEP_COMPONENTS", 300)
    pieces = check(tmp_path, num_workers=4)
    assert told(pieces) == told(whole)
    for found in (whole, pieces):
        rows = {kind: [p.row_in_file for p in problems] for kind, problems in told(found).items()}
        assert rows == {"null_vector": [7], "null_embeddings": [33], "not_finite": [61], "duplicate": [79]}
        for problem in (p for problems in told(found).values() for p in problems):
            assert problem.row_in_file == problem.row_group * (80 // num_groups) + problem.row_in_group
        assert (found.totals.num_checked, found.totals.num_sentences) == (80, sum(len(v or []) for v in vectors))


def test_a_row_is_bad_where_the_training_reader_skips_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors, texts = documents(200, seed=3), []
    for number, vector in enumerate(vectors):
        texts.append([f"{number} {j}" for j in range(len(vector))])
        fault = int(rng.integers(0, 12))
        if fault == 0:
            vector[-1] = vector[-1][:-1]
        elif fault == 1:
            vector[0][int(rng.integers(DIM))] = float("-inf")
        elif fault == 2:
            vector[0] = [0.0] * DIM
        elif fault == 3:
            texts[-1].append("one more")
        elif fault == 4:
            texts[-1][0] = None
        elif fault == 5:
            vectors[number] = []
        elif fault == 6:
            vectors[number], texts[-1] = [], []
    kind = pa.list_(pa.list_(pa.float64()))
    write(tmp_path / "a.parquet", table(vectors, texts=texts, kind=kind), row_group_size=30)
    config = ConceptParquetConfig(path=str(tmp_path), text_column=TEXT_COLUMN, on_bad_rows="skip", max_bad_share=1.0)
    good = {d.row for d in ConceptParquetDataset(config).documents()}
    found = verify(VerifyConfig(data=ConceptParquetConfig(path=str(tmp_path)), most_kept=200))
    errors = [p for problems in told(found).values() for p in problems if p.severity == "error"]
    assert {p.row_in_file for p in errors} == set(range(200)) - good
    assert found.findings.num_bad_rows == len(errors) == 200 - len(good) > 50


def test_documents_stored_twice_are_found_by_vectors_by_text_and_by_id(tmp_path: Path) -> None:
    first, second = documents(6, seed=4), documents(6, seed=5)
    same_text = [[f"d {i} {j}" for j in range(len(v))] for i, v in enumerate(first)]
    second[2] = first[3]
    second[4] = (np.asarray(first[1]) + 1.0).tolist()
    texts = [[f"e {i} {j}" for j in range(len(v))] for i, v in enumerate(second)]
    texts[4] = same_text[1]
    write(tmp_path / "a.parquet", table(first))
    write(tmp_path / "b.parquet", table(second, texts=texts, name="e").set_column(0, "id", pa.array(["d-5", *"vwxyz"])))
    found = told(check(tmp_path))
    seen = {k: [(p.file, p.row_in_file, p.other_file, p.other_row) for p in problems] for k, problems in found.items()}
    assert seen == {
        "duplicate": [("b.parquet", 2, "a.parquet", 3)],
        "duplicate_text": [("b.parquet", 4, "a.parquet", 1)],
        "same_id": [("b.parquet", 0, "a.parquet", 5)],
    }


def test_a_document_in_two_splits_names_both(tmp_path: Path) -> None:
    train, validation = documents(6, seed=4), documents(3, seed=5)
    validation[1] = train[4]
    write(tmp_path / "split=train" / "a.parquet", table(train))
    write(tmp_path / "split=val" / "a.parquet", table(validation, name="e"))
    found = check(tmp_path)
    (problem,) = told(found)["two_splits"]
    assert (problem.file, problem.row_in_file, problem.other_row) == ("split=val/a.parquet", 1, 4)
    assert "in val, and in train" in problem.reason and list(told(found)) == ["two_splits"]
    assert check(tmp_path, split="validation").totals.num_checked == 3


def test_the_same_sentences_cut_elsewhere_are_another_text(tmp_path: Path) -> None:
    vectors = documents(2, seed=6)
    vectors = [v[:2] for v in vectors]
    write(tmp_path / "a.parquet", table(vectors, texts=[["ab", "c"], ["a", "bc"]]))
    assert not told(check(tmp_path))


def test_vectors_within_one_percent_are_near_constant_and_others_are_not(tmp_path: Path) -> None:
    vectors = documents(3, seed=7)
    vectors[0][1] = (0.5 + 0.0024 * np.linspace(-1, 1, DIM)).tolist()
    vectors[1][0] = (0.5 + 0.0026 * np.linspace(-1, 1, DIM)).tolist()
    vectors[2][1] = [-2.0] * DIM
    write(tmp_path / "a.parquet", table(vectors))
    found = told(check(tmp_path))
    assert [(p.row_in_file, p.sentence) for p in found["near_constant"]] == [(0, 1), (2, 1)]


def test_white_space_around_a_sentence_does_not_count(tmp_path: Path) -> None:
    texts = [["  abcdefghij \n", "b"], ["a", "abcdefghijk"], ["\u3000\t", "x"], ["\u00e9" * 10, "y"]]
    write(tmp_path / "a.parquet", table([d[:2] for d in documents(4, seed=8)], texts=texts))
    found = told(check(tmp_path, max_length=10))
    assert [(p.row_in_file, p.sentence) for p in found["long_sentence"]] == [(1, 1)]
    assert [(p.row_in_file, p.sentence) for p in found["blank_sentence"]] == [(2, 0)]


def test_both_columns_of_supervised_data_are_checked(tmp_path: Path) -> None:
    source, target = documents(6, seed=9), documents(6, seed=10)
    source[1][0][2] = float("nan")
    target[4] = None
    prompts = pa.array([[f"p {i} {j}" for j in range(len(v))] for i, v in enumerate(source)], pa.list_(pa.string()))
    content = table(target, prompt_sentences=prompts, prompt_sentences_sonar_emb=pa.array(source, VECTORS))
    write(tmp_path / "a.parquet", content)
    found = check(tmp_path, embedding_column="prompt_sentences_sonar_emb", target_column=EMBEDDING_COLUMN)
    errors = told(found)
    assert [(p.row_in_file, p.column) for p in errors["not_finite"]] == [(1, "prompt_sentences_sonar_emb")]
    assert [(p.row_in_file, p.column) for p in errors["null_embeddings"]] == [(4, EMBEDDING_COLUMN)]
    assert set(found.totals.columns) >= {"prompt_sentences", TEXT_COLUMN}


def test_rows_that_filters_leave_out_are_not_checked_but_counted(tmp_path: Path) -> None:
    vectors = documents(10, seed=11)
    vectors[2][0] = [float("nan")] * DIM
    vectors[7][0] = [float("nan")] * DIM
    write(tmp_path / "a.parquet", table(vectors, year=pa.array(range(10))), row_group_size=4)
    found = check(tmp_path, filters=[FilterConfig(column="year", operator=">", value=4)])
    assert places(told(found)["not_finite"]) == [("a.parquet", 7)]
    assert (found.totals.num_checked, found.totals.num_filtered) == (5, 5)


def test_the_width_is_what_most_rows_have_unless_it_is_said(tmp_path: Path) -> None:
    for name, count, dim in (("a", 5, 12), ("b", 9, DIM), ("c", 3, DIM)):
        kind = pa.list_(pa.list_(pa.float32()))
        vectors = documents(count, seed=ord(name), dim=dim)
        vectors[0][0] = [float("nan")] * dim
        write(tmp_path / f"{name}.parquet", table(vectors, kind=kind, name=name), row_group_size=1)
    found = check(tmp_path)
    assert found.totals.width == DIM and [p.file for p in told(found)["file_width"]] == ["a.parquet"]
    assert len(told(found)["not_finite"]) == 3, "a file of another width is checked all the same"
    said = check(tmp_path, concept_dim=12)
    assert [p.file for p in told(said)["file_width"]] == ["b.parquet", "c.parquet"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[[1, 2]]] * 3, pa.list_(pa.list_(pa.int32()))),
        pa.array([[[1, 2]]] * 3, pa.list_(pa.list_(pa.decimal128(9, 2)))),
        pa.array([b"abc"] * 3),
        pa.array([{"a": [1.0]}] * 3),
        pa.array([[]] * 3),
        pa.array([None] * 3),
    ],
    ids=lambda column: str(column.type),
)
def test_embeddings_of_another_type_are_one_problem(tmp_path: Path, column: pa.Array) -> None:
    write(tmp_path / "a.parquet", pa.table({EMBEDDING_COLUMN: column}))
    found = check(tmp_path)
    assert [(p.kind, p.column) for p in told(found)["column_type"]] == [("column_type", EMBEDDING_COLUMN)]
    assert found.findings.count("error") == 1


def test_text_is_needed_unless_somebody_says_that_there_is_none(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(documents(3, seed=1)).select([EMBEDDING_COLUMN]))
    assert [(p.file, p.column) for p in told(check(tmp_path, needs_text=True))["missing_column"]] == [
        ("a.parquet", TEXT_COLUMN)
    ]
    found = check(tmp_path)
    assert not found.findings.count("error") and "no_text" in told(found)


def test_columns_that_differ_between_files_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(documents(3, seed=1), title=pa.array(["a"] * 3), name="a"))
    title = pa.array(["a"] * 3).dictionary_encode()
    large = table(documents(3, seed=2), kind=pa.large_list(pa.list_(pa.float32(), DIM)), title=title, name="b")
    write(tmp_path / "b.parquet", large)
    assert not told(check(tmp_path)), "how offsets and repetitions are stored makes no difference"
    write(tmp_path / "c.parquet", table(documents(3, seed=3), title=pa.array([1] * 3), name="c"))
    half = table(documents(3, seed=4), kind=pa.list_(pa.list_(pa.float16(), DIM)), name="d", more=pa.array([1] * 3))
    write(tmp_path / "d.parquet", half)
    found = told(check(tmp_path))
    assert [(p.file, p.column) for p in found["schema_drift"]] == [
        ("c.parquet", "title"),
        ("d.parquet", "more"),
        ("d.parquet", "title"),
    ]
    assert [p.file for p in found["float_type"]] == ["d.parquet"]


def test_a_partition_that_is_a_column_too_is_told(tmp_path: Path) -> None:
    write(tmp_path / "lang=eng" / "a.parquet", table(documents(3, seed=1), lang=pa.array(["eng"] * 3)))
    found = told(check(tmp_path))
    assert [(p.file, p.column) for p in found["partition_in_file"]] == [("lang=eng/a.parquet", "lang")]


def test_columns_that_are_asked_for_must_be_there(tmp_path: Path) -> None:
    content = table(documents(3, seed=1)).drop_columns([TEXT_COLUMN, "id"])
    write(tmp_path / "a.parquet", content.rename_columns(["Text_Sentences_Sonar_Emb"]))
    (problem,) = told(check(tmp_path, id_column="name", text_column="words"))["missing_column"][:1]
    assert 'Did you mean "Text_Sentences_Sonar_Emb"?' in problem.reason
    missing = told(check(tmp_path, id_column="name", text_column="words"))["missing_column"]
    assert [p.column for p in missing] == [EMBEDDING_COLUMN, "words", "name"]


def test_sources_may_number_their_documents_alike(tmp_path: Path) -> None:
    write(tmp_path / "a" / "a.parquet", table(documents(3, seed=1)))
    write(tmp_path / "b" / "a.parquet", table(documents(3, seed=2), texts=[["x", "y"]] * 3))
    data = ConceptParquetConfig(sources=[SourceConfig(path=str(tmp_path / name)) for name in "ab"])
    found = told(check(tmp_path, data=data))
    assert "same_id" not in found and found["counts_differ"][0].source == "b"


def test_thousands_of_tiny_row_groups_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table(documents(2000, seed=1)), row_group_size=2)
    found = check(tmp_path)
    assert list(told(found)) == ["small_row_groups"] and found.totals.num_checked == 2000


def test_an_interrupted_check_leaves_no_thread_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_rows, "_STEP_COMPONENTS", 100)
    write(tmp_path / "a.parquet", table(documents(200, seed=1)), row_group_size=50)
    before = threading.active_count()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        verify(VerifyConfig(data=ConceptParquetConfig(path=str(tmp_path)), num_workers=2), progress=interrupt)
    assert caught.tb is not None and threading.active_count() == before


def test_nothing_left_by_filters_is_not_good_data(tmp_path: Path) -> None:
    write(tmp_path / "lang=eng" / "a.parquet", table(documents(3, seed=1), year=pa.array([1] * 3)))
    with pytest.raises(DataError, match="no file that `filters` and splits let pass"):
        check(tmp_path, filters=[FilterConfig(column="lang", value="jpn")])
    found = check(tmp_path, filters=[FilterConfig(column="year", value=2)])
    assert "filters leave none of 3" in told(found)["no_documents"][0].reason


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "split=train" / "a.parquet", table(documents(3, seed=1)))
    with pytest.raises(DataError, match="no files for the split `valid`; splits found: train"):
        check(tmp_path, split="valid")
    with pytest.raises(DataError, match="does not exist"):
        check(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--workers"):
        check(tmp_path, num_workers=0)
    with pytest.raises(ConfigError, match="--max-length"):
        check(tmp_path, max_length=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells what a process has used")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """One file of one row group, of 20 MB and of 100 MB."""
    rng = np.random.default_rng(0)
    peaks = []
    for num_vectors in (10_000, 50_000):
        file = tmp_path / f"{num_vectors}.parquet"
        bits = np.frombuffer(rng.bytes(num_vectors * 2048), np.uint16) & 0xBFFF  # without what makes a half infinite
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(bits.view(np.float16)), 1024)
        offsets = pa.array(np.arange(0, num_vectors + 1, 10), pa.int32())
        content = pa.table({EMBEDDING_COLUMN: pa.ListArray.from_arrays(offsets, vectors)})
        pq.write_table(content, file, compression="none", use_dictionary=False, row_group_size=num_vectors)
        code = f"""
from pathlib import Path
from lexalcm.pipelines.verify.run import verify, VerifyConfig
from lexalcm.data.sources import ConceptParquetConfig
found = verify(VerifyConfig(data=ConceptParquetConfig(path={str(file)!r}), num_workers=2, needs_text=False))
assert found.totals.num_checked == {num_vectors // 10} and not found.findings.count("error")
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 24, f"peak memory in MiB: {peaks}"
