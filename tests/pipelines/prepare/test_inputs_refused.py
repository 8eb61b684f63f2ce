"""Raw documents that cannot be used: what is wrong is said before any work, by file and line, with what to do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.prepare.inputs import InputConfig, RawPlan, plan_inputs

GOOD = '{"text": "a"}\n'


def plan_of(*paths: Path, **config: Any) -> RawPlan:
    return plan_inputs(InputConfig(paths=tuple(map(str, paths)), **config))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "a"', r"is not JSON: Expecting ',' delimiter, at column 13"),
        (b'{"text": "a"}}', "is not JSON: Extra data, at column 14"),
        (b"['text']", "is not JSON: Expecting value"),
        (b'["a"]', r'must be an object with the columns of a document, but is \["a"\]'),
        (b'"a"', "must be an object"),
        (b'{"text": "a", "text": "b"}', "has `text` twice"),
        (b'{"text": "\\ud800"}', r"holds \\ud800, half of a surrogate pair"),
        (b'{"text": "a\xff"}', "is not UTF-8: invalid start byte, 0xff at byte 12 of the line"),
        (b'{"text": 7}', "`text` must be text, but holds whole numbers"),
        (b'{"text": "a", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = write(tmp_path / "a.jsonl", GOOD.encode() * 4710 + line + b"\n" + GOOD.encode() * 3)
    with pytest.raises(DataError, match="^a.jsonl:4711:? .*" + said):
        plan_of(path)
    array = write(tmp_path / "a.json", b"[" + b",\n".join([b'{"text": "a"}'] * 3 + [line]) + b"]")
    if not line.startswith(b"['"):
        with pytest.raises(DataError, match="^a.json:4"):
            plan_of(array)


def test_escaped_pairs_and_numbers_that_are_none_are_taken(tmp_path: Path) -> None:
    lines = ['{"text": "\\ud83d\\ude00", "s": NaN}', '{"text": "b", "s": 1}', '{"text": "c", "s": -Infinity}']
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    rows = [row for shard in plan_of(path).shards for row in shard]
    assert rows[0]["text"] == "\U0001f600" and [str(r["s"]) for r in rows] == ["nan", "1.0", "-inf"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "a.json is empty"),
        ('{"rows": []}', "neither an array of objects nor an object with such an array as `data`"),
        (GOOD * 2, "--format jsonl"),
        ('{"data": {"text": "a"}}', "neither an array"),
        ('[{"text": "a"} {"text": "b"}]', 'a.json:1 is not JSON: "]" is expected, but "{"'),
        ('[{"text": "a"},]', "a value is expected"),
        ('[{"text": "a"}', "the file ends"),
        ('[{"text": "a', "does not end in the file"),
        ('[{"text": "a"}] x', "goes on after its array"),
        ('{"data": [], "data": []}', "has `data` twice"),
        ("[]", "There is no document"),
    ],
)
def test_a_json_file_of_another_shape_is_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said.replace("[", r"\[")):
        plan_of(write(tmp_path / "a.json", content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,n\na,1\nb\n", "a.csv:3 has 1 values, but there are 2 columns: text, n"),
        ("text,n\na,1,2\n", "a.csv:2 has 3 values"),
        ("text,text\na,b\n", "a.csv:1 has two columns `text`"),
        ('text\na\n"b\nc\n', "a.csv:3 is not csv: unexpected end of data"),
        ('text\n"a"b\n', "a.csv:2 is not csv"),
        ("body;id\na;1\n", "has no column `text` to take text from .*: body;id"),
        ("", "There is no document in .*a.csv .0 bytes"),
        ("text\n", "There is no document"),
        ("text\ra\rb\r", "a.csv:1 has a carriage return outside of quotes"),
    ],
)
def test_a_csv_file_with_a_fault_is_refused_by_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        plan_of(write(tmp_path / "a.csv", content))


def test_very_long_values_are_read(tmp_path: Path) -> None:
    text = "long " * 200_000
    line = json.dumps({"text": text})
    for name, content in (("a.csv", f"text\n{text}\n"), ("a.jsonl", line), ("a.json", f"[{line}]")):
        assert [row["text"] for row in plan_of(write(tmp_path / name, content)).shards[0]] == [text]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_a_packed_file_that_is_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    lines = b"".join(json.dumps({"text": str(n**9)}).encode() + b"\n" for n in range(5000))
    packed = gzip.compress(lines) if name.endswith("gz") else zstandard.ZstdCompressor().compress(lines)
    with pytest.raises(DataError, match=f"{name} cannot be read as (gzip|zstd)"):
        plan_of(write(tmp_path / name, packed[: len(packed) * 9 // 10]))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_damaged_file_of_rows_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="is empty"):
        plan_of(write(tmp_path / name, b""))
    with pytest.raises(DataError, match="not a complete (parquet|Arrow) file"):
        plan_of(write(tmp_path / name, b"PAR1 nothing like it at all"))


def test_bytes_that_are_no_text_in_parquet_are_refused_by_row(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a.parquet: rows from 0 on: column `text` is damaged"):
        list(plan_of(tmp_path / "a.parquet").shards[0])


def test_values_of_two_types_are_refused_with_both_places_and_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "n": null}\n{"text": "a", "n": 1}\n{"text": "a", "n": "x"}\n')
    said = "a.jsonl:3: column `n` holds text, but at a.jsonl:2 it holds whole numbers"
    with pytest.raises(DataError, match=said) as error:
        plan_of(path)
    assert "--drop-column n" in str(error.value) and "--as-text n" in str(error.value)
    assert "n" not in plan_of(path, drop_columns=("n",)).schema.names
    assert [row["n"] for row in plan_of(path, as_text_columns=("n",)).shards[0]] == [None, "1", "x"]
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "b.parquet")
    write(tmp_path / "c.csv", "text,n\na,1\n")
    with pytest.raises(DataError, match="c.csv: column `n` holds string, but at b.parquet it holds int64"):
        plan_of(tmp_path / "b.parquet", tmp_path / "c.csv")
    write(tmp_path / "d.jsonl", f'{{"text": "a", "n": {2**63}}}')
    with pytest.raises(DataError, match="d.jsonl:1: column `n` holds a whole number beyond 64 bits"):
        plan_of(tmp_path / "d.jsonl")


def test_types_are_unified_over_all_files(tmp_path: Path) -> None:
    first = '{"text": "a", "n": 9007199254740993, "o": {"x": 1}, "l": [], "j": [1, "2"], "e": {}}\n'
    write(tmp_path / "a.jsonl", first)
    write(tmp_path / "b.jsonl", '{"text": null, "n": 0.5, "o": {"y": [true]}, "l": ["s"], "extra": null}\n')
    pq.write_table(pa.table({"text": ["c"], "n": pa.array([3], pa.int32()), "o": [{"x": 2.5}]}), tmp_path / "c.parquet")
    plan = plan_of(tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.parquet")
    assert dict(zip(plan.schema.names, plan.schema.types)) == {
        "id": pa.string(),
        "text": pa.string(),
        "n": pa.float64(),
        "o": pa.struct([("x", pa.float64()), ("y", pa.list_(pa.bool_()))]),
        "l": pa.list_(pa.string()),
        "j": pa.string(),
        "e": pa.string(),
        "extra": pa.string(),
    }
    assert plan.num_blank == 1
    rows = [row for shard in plan.shards for row in shard]
    assert rows[0]["j"] == '[1, "2"]' and rows[0]["e"] == "{}" and rows[0]["o"] == {"x": 1.0, "y": None}
    assert rows[1]["text"] is None and rows[1]["o"] == {"x": None, "y": [True]}
    assert rows[2]["n"] == 3.0 and rows[2]["o"] == {"x": 2.5, "y": None} and rows[2]["l"] is None


def test_ids_that_come_twice_are_refused_with_both_places(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "t", "id": n}) for n in range(3000)]
    write(tmp_path / "a.jsonl", "\n".join(lines))
    pq.write_table(pa.table({"text": ["t"] * 3, "id": [5000, 1234, 7]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="^b.parquet: row 1: `id` is '1234', as it is at a.jsonl:1235"):
        plan_of(tmp_path / "a.jsonl", tmp_path / "b.parquet")
    plan = plan_of(tmp_path / "a.jsonl", tmp_path / "b.parquet", drop_columns=("id",))
    assert plan.id_column is None and [r["id"] for r in plan.shards[-1]][-1] == "b-3"


def test_a_document_without_an_id_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "id": "x"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match="a.jsonl:2: the document has no `id`"):
        plan_of(path)


def test_an_id_column_of_another_name_becomes_id(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "key": 7, "n": 1}\n')
    plan = plan_of(path, id_column="key")
    assert plan.schema.names == ["id", "text", "n"] and [r["id"] for r in plan.shards[0]] == ["7"]
    write(path, '{"text": "a", "key": 7, "id": 1}\n')
    with pytest.raises(DataError, match="has a column `id`, but `key`"):
        plan_of(path, id_column="key")


def test_missing_columns_are_named_with_near_matches(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"texts": "a", "language": "en", "n": 1}\n')
    with pytest.raises(DataError, match='a.jsonl has no column `text` .*texts, language, n.*Did you mean "texts"'):
        plan_of(path)
    good = {"text_columns": ("texts",)}
    with pytest.raises(DataError, match=r'no column `langage` \(--lang-column\).*Did you mean "language"'):
        plan_of(path, **good, lang_column="langage")
    with pytest.raises(DataError, match=r"a.jsonl:1: `n` \(--lang-column\) must be text, but is int64"):
        plan_of(path, **good, lang_column="n")
    with pytest.raises(ConfigError, match="no column `m` .--drop-column"):
        plan_of(path, **good, drop_columns=("m",))


def test_inputs_that_hold_nothing_to_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.jsonl does not exist"):
        plan_of(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="holds no file of a known format"):
        plan_of(tmp_path)
    with pytest.raises(DataError, match="There is no document in .*a.jsonl .0 bytes"):
        plan_of(write(tmp_path / "a.jsonl", ""))
    write(tmp_path / "b.txt", "b")
    with pytest.raises(DataError, match="files of several formats: 1 of jsonl, 1 of txt"):
        plan_of(tmp_path)
    with pytest.raises(DataError, match="b.txt is given twice"):
        plan_of(tmp_path, tmp_path / "b.txt", format="txt")
    with pytest.raises(DataError, match="no suffix that tells its format"):
        plan_of(write(tmp_path / "c.dat", "c"))
    with pytest.raises(DataError, match="begins as UTF-16"):
        plan_of(write(tmp_path / "d.jsonl", GOOD.encode("utf-16")))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": "jsonn"}, 'Did you mean "json'),
        ({"text_columns": ()}, "`text_columns` must be one column"),
        ({"text_columns": ("a", "a")}, "has a twice"),
        ({"drop_columns": ("text",)}, "`text_columns` needs it"),
        ({"lang_column": "text"}, "cannot be `text_columns` and `lang_column` at once"),
        ({"drop_columns": ("n",), "as_text_columns": ("n",)}, "left out .* and kept as text"),
        ({"paths": ()}, "must name a file"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        InputConfig(**{"paths": ("a.jsonl",), **fields}).check()
