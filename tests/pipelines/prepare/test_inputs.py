"""Raw documents: every format gives the same ones, any number of shards gives each once and in order."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from stopes.utils.sharding.abstract_shards import BatchFormat

from lexalcm.data.discover import DataWarning
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.prepare.inputs import (
    PLACE_COLUMN,
    ROW_COLUMN,
    InputConfig,
    RawPlan,
    RawShardsConfig,
    plan_inputs,
)
from lexalcm.pipelines.prepare.raw_files import find_files

DOCUMENTS = [
    {
        "id": f"d{n}",
        "text": f'Text {n}, "quoted",\nsecond line.\u2028Still \u6c34. ' + "x" * (n * 37 % 200),
        "lang": "eng_Latn",
    }
    for n in range(23)
]
LINES = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in DOCUMENTS)


def read(plan: RawPlan, batch_size: int | None = 5) -> pa.Table:
    """All shards joined, as workers see them."""
    shards = pickle.loads(pickle.dumps(RawPlan.from_json(json.loads(json.dumps(plan.to_json()))).shards))
    tables = []
    for shard in shards:
        with shard:
            batches = list(shard.to_batches(batch_size, batch_format=BatchFormat.ARROW))
        assert sum(batch.num_rows for batch in batches) == shard.num_documents
        assert batch_size is None or {batch.num_rows for batch in batches[:-1]} <= {batch_size}
        tables += batches
    table = pa.concat_tables(tables)
    assert table.schema.names == [*plan.schema.names, ROW_COLUMN, PLACE_COLUMN]
    assert table.column(ROW_COLUMN).to_pylist() == list(range(plan.num_documents))
    return table


def plan_of(*paths: Path | str, num_shards: int | None = None, **config: Any) -> RawPlan:
    return plan_inputs(InputConfig(paths=tuple(map(str, paths)), **config), num_shards=num_shards)


def rows(*paths: Path | str, **config: Any) -> list[dict[str, Any]]:
    return read(plan_of(*paths, **config)).drop_columns([ROW_COLUMN, PLACE_COLUMN]).to_pylist()


def places(*paths: Path | str, **config: Any) -> list[str]:
    return read(plan_of(*paths, **config)).column(PLACE_COLUMN).to_pylist()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_csv(path: Path, documents: Sequence[dict[str, Any]], delimiter: str, end: str) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(documents[0]), delimiter=delimiter, lineterminator=end)
        writer.writeheader()
        writer.writerows(documents)


def write_saved(folder: Path, documents: Sequence[dict[str, Any]], num_files: int = 2) -> None:
    """A dataset as save_to_disk leaves it: Arrow streams and their list."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{num_files:05d}.arrow" for n in range(num_files)]
    for number, name in enumerate(names):
        size = -(-len(documents) // num_files)
        table = pa.Table.from_pylist(list(documents[number * size : (number + 1) * size]))
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


def make(path: Path, kind: str) -> Path:
    if kind == "jsonl":
        return write(path / "a.jsonl", LINES)
    if kind == "ndjson with a byte order mark and CRLF":
        return write(path / "a.ndjson", b"\xef\xbb\xbf" + LINES.replace("}\n", "}\r\n").encode())
    if kind == "jsonl without a last line feed":
        return write(path / "a.jsonl", LINES.rstrip("\n"))
    if kind == "json":
        return write(path / "a.json", json.dumps(DOCUMENTS, indent=1))
    if kind == "json under data":
        return write(path / "a.json", json.dumps({"v": {"data": [1, "]"]}, "data": DOCUMENTS, "end": [{}]}))
    if kind in ("csv", "tsv"):
        write_csv(path / f"a.{kind}", DOCUMENTS, "," if kind == "csv" else "\t", "\n")
        return path / f"a.{kind}"
    if kind == "csv with CRLF":
        write_csv(path / "a.csv", DOCUMENTS, ",", "\r\n")
        return path / "a.csv"
    if kind == "packed csv with a byte order mark":
        write_csv(path / "a.csv", DOCUMENTS, ",", "\n")
        return write(path / "b.csv.xz", lzma.compress(b"\xef\xbb\xbf" + (path / "a.csv").read_bytes()))
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(DOCUMENTS), path / "a.parquet", row_group_size=4)
        return path / "a.parquet"
    if kind == "parquet with other encodings":
        table = pa.Table.from_pylist(DOCUMENTS)
        category = pa.dictionary(pa.int8(), pa.string())
        types = [("id", pa.large_string()), ("text", pa.large_string()), ("lang", category)]
        pq.write_table(table.cast(pa.schema(types)), path / "a.parquet")
        return path / "a.parquet"
    if kind == "arrow with a footer":
        table = pa.Table.from_pylist(DOCUMENTS)
        with pa.OSFile(str(path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
        return path / "a.arrow"
    if kind == "saved dataset":
        write_saved(path / "saved", DOCUMENTS)
        return path / "saved"
    if kind == "folder of two":
        half = LINES.index('{"id": "d11"')
        write(path / "f" / "sub" / "1.jsonl", LINES[:half])
        write(path / "f" / "sub" / "2.jsonl.gz", gzip.compress(LINES[half:].encode()))
        write(path / "f" / "_SUCCESS.jsonl", "not JSON")
        write(path / "f" / ".hidden" / "3.jsonl", "not JSON")
        write(path / "f" / "README.md", "about")
        return path / "f"
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }
    half = len(LINES.encode()) // 2  # two members or frames one after the other
    pack = packers[kind.removeprefix("jsonl.")]
    return write(path / f"a.{kind}", pack(LINES.encode()[:half]) + pack(LINES.encode()[half:]))


KINDS = [
    "jsonl",
    "ndjson with a byte order mark and CRLF",
    "jsonl without a last line feed",
    "json",
    "json under data",
    "csv",
    "tsv",
    "csv with CRLF",
    "packed csv with a byte order mark",
    "parquet",
    "parquet with other encodings",
    "arrow with a footer",
    "saved dataset",
    "folder of two",
    "jsonl.gz",
    "jsonl.bz2",
    "jsonl.xz",
    "jsonl.zst",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_in_any_number_of_shards_gives_the_same_documents(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path, kind)
    whole = read(plan_of(path), batch_size=None)
    assert whole.drop_columns([ROW_COLUMN, PLACE_COLUMN]).to_pylist() == DOCUMENTS
    for num_shards in (1, 2, 7, 100):
        plan = plan_of(path, num_shards=num_shards)
        assert [shard.index for shard in plan.shards] == list(range(min(num_shards, 23)))
        assert read(plan).equals(whole)
        assert sum(shard.num_bytes for shard in plan.shards) == plan.num_bytes > 0


def test_shards_hold_about_as_many_bytes_and_by_default_8_mib(tmp_path: Path) -> None:
    small = [json.dumps({"text": "y" * 10}) for _ in range(2000)]
    large = [json.dumps({"text": "z" * 100_000}) for _ in range(200)]
    path = write(tmp_path / "a.jsonl", "\n".join([*small, *large]))
    plan = plan_of(path)
    assert len(plan.shards) == 3
    assert max(shard.num_bytes for shard in plan.shards) < 1.05 * min(shard.num_bytes for shard in plan.shards)
    assert read(plan).num_rows == 2200


def test_marks_stay_few_and_shards_exact(tmp_path: Path) -> None:
    from lexalcm.pipelines.prepare.raw_marks import Marks
    from lexalcm.pipelines.prepare.raw_streams import Mark

    marks = Marks(most=64)
    for row in range(10_000):
        marks.note(row, 10 * row, Mark(row, row + 1, 10 * row))
    near = marks.before(7_777, 0)
    assert near is not None and 7_777 - 400 < near.row <= 7_777 and near.offset == 10 * near.row
    assert marks.before(7_777, 7_777) is None
    starts = marks.cut(10_000, 100_000, 1000)
    assert len(starts) == 1000 and starts[0] == 0 and starts == sorted(set(starts))
    assert max(b - a for a, b in zip(starts, starts[1:])) <= 11


def test_lines_end_at_line_feeds_alone_and_places_count_all_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\n{"text": "a\u2028b\u0085c"}\r\n\r\n  \n{"text": "d"}')
    assert [r["text"] for r in rows(path)] == ["a\u2028b\u0085c", "d"]
    assert places(path) == ["a.jsonl:2", "a.jsonl:5"]
    table = write(tmp_path / "a.csv", 'text,n\n"one\ntwo",1\n\nthree,2\n')
    assert places(table) == ["a.csv:2", "a.csv:5"] and rows(table)[0]["text"] == "one\ntwo"
    array = write(tmp_path / "a.json", '[\n{"text": "a"},\n\n {"text":\n "b"}]\n')
    assert places(array) == ["a.json:2", "a.json:4"]


def test_text_files_are_documents_named_by_their_path(tmp_path: Path) -> None:
    write(tmp_path / "t" / "b" / "two.txt", "Zwei.\r\n\r\nEnde ")
    write(tmp_path / "t" / "a.one.txt", b"\xef\xbb\xbfEins")
    write(tmp_path / "t" / "c.txt.gz", gzip.compress(b""))
    plan = plan_of(tmp_path / "t")
    assert plan.num_blank == 1
    assert rows(tmp_path / "t") == [
        {"id": "a.one", "text": "Eins"},
        {"id": "b/two", "text": "Zwei.\r\n\r\nEnde "},
        {"id": "c", "text": ""},
    ]
    assert places(tmp_path / "t") == ["a.one.txt", "b/two.txt", "c.txt.gz"]


def test_made_ids_are_unique_over_files_of_the_same_name(tmp_path: Path) -> None:
    for name in ("x/a.jsonl", "y/a.jsonl"):
        write(tmp_path / name, '{"text": "1"}\n{"text": "2"}\n')
    assert [r["id"] for r in rows(tmp_path / "x")] == ["a-1", "a-2"]
    assert [r["id"] for r in rows(tmp_path)] == ["x/a-1", "x/a-2", "y/a-1", "y/a-2"]
    two = [r["id"] for r in rows(tmp_path / "x", tmp_path / "y" / "a.jsonl")]
    assert len(set(two)) == 4


def test_partitions_and_saved_splits_are_columns_of_text(tmp_path: Path) -> None:
    for year in ("04", "2024"):
        folder = tmp_path / "hive" / "split=train" / f"year={year}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"text": ["a"]}), folder / "part.parquet")
    plan = plan_of(tmp_path / "hive")
    assert plan.split_column == "split"
    assert [(r["split"], r["year"]) for r in rows(tmp_path / "hive")] == [("train", "04"), ("train", "2024")]
    write_saved(tmp_path / "saved" / "train", DOCUMENTS[:3])
    write_saved(tmp_path / "saved" / "test", DOCUMENTS[3:5], num_files=1)
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert [r["split"] for r in rows(tmp_path / "saved")] == ["train"] * 3 + ["test"] * 2
    assert places(tmp_path / "saved")[-1] == "test/data-00000-of-00001.arrow: row 1"


def test_a_path_wins_over_a_column_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "lang=jpn_Jpan" / "a.jsonl", '{"text": "a", "lang": 7}\n')
    with pytest.warns(DataWarning, match="the path says `lang=jpn_Jpan`"):
        plan = plan_of(tmp_path)
    assert read(plan).column("lang").to_pylist() == ["jpn_Jpan"]


def test_files_elsewhere_are_read_as_local_ones() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/inputs_test/sub/a.jsonl", LINES.encode())
    memory.pipe("/inputs_test/sub/b.jsonl.zst", zstandard.ZstdCompressor().compress(b'{"id": "last", "text": "z"}\n'))
    assert rows("memory://inputs_test", num_shards=None)[:23] == DOCUMENTS
    assert read(plan_of("memory://inputs_test/sub/a.jsonl", num_shards=5)).num_rows == 23
    assert places("memory://inputs_test")[-1] == "sub/b.jsonl.zst:1"
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(DOCUMENTS), sink)
    memory.pipe("/inputs_test_parquet/a.parquet", sink.getvalue().to_pybytes())
    assert rows("memory://inputs_test_parquet/*.parquet") == DOCUMENTS
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(DOCUMENTS)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    memory.pipe("/inputs_test_saved/data.arrow", sink.getvalue().to_pybytes())
    memory.pipe("/inputs_test_saved/state.json", b'{"_data_files": [{"filename": "data.arrow"}]}')
    table = read(plan_of("memory://inputs_test_saved", num_shards=4))
    assert table.drop_columns([ROW_COLUMN, PLACE_COLUMN]).to_pylist() == DOCUMENTS


def test_changes_of_the_input_are_named(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, '{"text": "1"}\n') for name in ("a.jsonl", "b.jsonl"))
    before = plan_of(tmp_path)
    assert plan_of(tmp_path).changes_since(before) == []
    write(a, '{"text": "12"}\n')
    b.rename(tmp_path / "c.jsonl")
    changes = plan_of(tmp_path).changes_since(before)
    assert len(changes) == 3 and "b.jsonl is gone" in changes[0]
    assert "a.jsonl has 15 bytes, and had 14" in changes[1] and "c.jsonl is new" in changes[2]
    with pytest.raises(DataError, match="has 15 bytes, but had 14"):
        read(before)


def test_a_file_of_the_same_size_with_fewer_documents_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "1"}\n{"text": "2"}\n')
    plan = plan_of(path)
    write(path, '{"text": "1"}\n' + " " * 13 + "\n")
    with pytest.raises(DataError, match="has 1 documents, but had at least 2"):
        read(plan)


def test_stopes_gets_its_shards_from_the_plan_on_disk_and_filters_are_refused(tmp_path: Path) -> None:
    plan = plan_of(make(tmp_path, "jsonl"), num_shards=3)
    stored = write(tmp_path / "plan", json.dumps(plan.to_json()))
    assert [s.index for s in RawShardsConfig(input_file=str(stored)).make_shards()] == [0, 1, 2]
    with pytest.raises(ConfigError, match="filters_expr"):
        RawShardsConfig(input_file=str(stored), filters_expr="__import__('os').abort()")
    assert len(RawShardsConfig(input_file=str(stored)).head(2)) == 2


def test_progress_reaches_the_size_on_disk(tmp_path: Path) -> None:
    path = make(tmp_path, "jsonl.gz")
    seen: list[tuple[int, int]] = []
    plan_inputs(InputConfig(paths=(str(path),)), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (path.stat().st_size,) * 2


@pytest.mark.parametrize("name", ["wiki_en.jsonl", "wiki_ja.jsonl"])
def test_real_articles_come_through_whole(name: str) -> None:
    path = Path(__file__).parents[4] / "shared" / "text" / name
    if not path.is_file():
        pytest.skip("the articles are not here")
    expected = [json.loads(line) for line in path.read_bytes().splitlines()]
    plan = plan_of(path, num_shards=5)
    assert read(plan, 64).drop_columns([ROW_COLUMN, PLACE_COLUMN]).to_pylist() == expected


def test_find_files_reads_anything_as_the_format_that_is_said(tmp_path: Path) -> None:
    write(tmp_path / "d" / "part-0", '{"text": "a"}\n')
    with pytest.raises(DataError, match="no file of a known format"):
        find_files([str(tmp_path / "d")])
    assert [r["text"] for r in rows(tmp_path / "d", format="jsonl")] == ["a"]
    assert [r["text"] for r in rows(tmp_path / "d" / "part-0", format="jsonl")] == ["a"]
