"""Conversion keeps every value, type and column, stores embeddings in fixed size, and lays documents out by split."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.data.split_by_id import split_of
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.plan import make_plan
from lexalcm.pipelines.convert.run import Conversion, convert

REAL = Path(__file__).parents[3] / "shared" / "data" / "real_en_minilm384"
WIDTH = 4


def run(source: Path | str, output: Path, **options: Any) -> Conversion:
    config = ConvertConfig(source=str(source), output=str(output), **options)
    config.check()
    return convert(config, make_plan(config))


def vectors(*lengths: int, seed: int = 0) -> list[list[list[float]]]:
    """Documents of so many vectors, with components that a half holds exactly."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 100, (n, WIDTH)).astype(np.float64).tolist() for n in lengths]


def documents(num: int, *, leaf: pa.DataType = pa.float32(), seed: int = 0, **columns: Any) -> pa.Table:
    lengths = [1 + i % 3 for i in range(num)]
    texts = [[f"{seed}.{i}.{j}" for j in range(n)] for i, n in enumerate(lengths)]
    embeddings = pa.array(vectors(*lengths, seed=seed), pa.list_(pa.list_(leaf, WIDTH)))
    return pa.table({**columns, "text_sentences": texts, EMBEDDING_COLUMN: embeddings})


def write(path: Path, table: pa.Table, *, rows: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def read(*paths: Path) -> pa.Table:
    return pa.concat_tables(pq.ParquetFile(path).read() for path in paths)


def all_columns() -> pa.Table:
    """Five documents with columns of every kind, between which embeddings and sentences stand."""
    texts = [["a", "b"], ["c"], [], ["d", ""], ["e"]]
    stamps = [datetime(2024, 1, day, tzinfo=timezone.utc) for day in range(1, 6)]
    struct = pa.struct([pa.field("tags", pa.list_(pa.string())), pa.field("n", pa.int16())])
    structs = [{"tags": ["x", None], "n": 1}, None, {"tags": None, "n": None}, {"tags": [], "n": 2}, None]
    prices = [Decimal("1.10"), None, Decimal("3.00"), Decimal("0.01"), Decimal("2.22")]
    columns = {
        "id": pa.array(["a", "b", "c", "d", "e"]),
        "struct": pa.array(structs, struct),
        EMBEDDING_COLUMN: pa.array(vectors(2, 1, 0, 2, 1), pa.list_(pa.list_(pa.float32(), WIDTH))),
        "binary": pa.array([b"\x00\xff", None, b"", b"x", b"y"], pa.large_binary()),
        "kind": pa.array(["p", "q", None, "p", "p"]).dictionary_encode(),
        "when": pa.array(stamps, pa.timestamp("us", tz="Asia/Tokyo")),
        "price": pa.array(prices, pa.decimal128(9, 2)),
        "text_sentences": pa.array(texts, pa.list_(pa.string())),
        "nothing": pa.array([None] * 5, pa.list_(pa.null())),
        "dotted.name": pa.array([1.5, float("nan"), None, -0.0, 5.0]),
        "map": pa.array([[("k", 1)], [], None, [("l", 2)], []], pa.map_(pa.string(), pa.int32())),
    }
    fields = [pa.field(name, a.type, metadata={"about": name}) for name, a in columns.items()]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata={"made": "by hand"}))


def test_columns_keep_values_types_order_and_metadata(tmp_path: Path) -> None:
    table = all_columns()
    write(tmp_path / "in" / "split=train" / "a.parquet", table, rows=2)
    run(tmp_path / "in", tmp_path / "out")
    found = read(tmp_path / "out" / "Train" / "a.parquet")
    stored = pq.ParquetFile(tmp_path / "in" / "split=train" / "a.parquet").read()
    assert found.schema.equals(stored.schema, check_metadata=True)
    for name in table.column_names:
        assert str(found.column(name).to_pylist()) == str(table.column(name).to_pylist()), name


def test_dropping_rows_and_drawing_splits_keep_all_types_too(tmp_path: Path) -> None:
    table = all_columns()
    embeddings = table.column(EMBEDDING_COLUMN).to_pylist()
    embeddings[1][0][2] = float("nan")
    spoilt = table.set_column(2, table.schema.field(2), pa.array(embeddings, table.schema.field(2).type))
    write(tmp_path / "in.parquet", spoilt)
    run(tmp_path / "in.parquet", tmp_path / "out", repair="drop", validation_share=0.5)
    found = read(*sorted((tmp_path / "out").glob("*/in.parquet"))).sort_by("id")
    expected = table.take([0, 2, 3, 4])
    for name in table.column_names:
        assert found.schema.field(name).type == table.schema.field(name).type
        assert str(found.column(name).to_pylist()) == str(expected.column(name).to_pylist()), name


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        (pa.float16(), "keep", pa.float16()),
        (pa.float32(), "keep", pa.float32()),
        (pa.float64(), "keep", pa.float32()),
        (pa.float64(), "float16", pa.float16()),
        (pa.float16(), "float32", pa.float32()),
    ],
)
@pytest.mark.parametrize("outer", [pa.list_, pa.large_list])
@pytest.mark.parametrize("fixed", [True, False])
def test_embeddings_become_lists_of_fixed_size(
    tmp_path: Path, given: pa.DataType, dtype: str, expected: pa.DataType, outer: Any, fixed: bool
) -> None:
    table = documents(6, leaf=given)
    kind = outer(pa.list_(given, WIDTH) if fixed else outer(given))
    table = table.set_column(1, EMBEDDING_COLUMN, pa.array(table.column(1).to_pylist(), kind))
    write(tmp_path / "in" / "Train" / "a.parquet", table)
    run(tmp_path / "in", tmp_path / "out", dtype=dtype)
    column = read(tmp_path / "out" / "Train" / "a.parquet").column(EMBEDDING_COLUMN)
    assert column.type == pa.list_(pa.list_(expected, WIDTH))
    assert column.to_pylist() == table.column(1).to_pylist()


def test_a_value_too_large_or_too_small_for_half_names_its_row(tmp_path: Path) -> None:
    for value in (1e5, 1e-9):
        embeddings = vectors(1, 1, 1, 1, 1, 1)
        embeddings[5] = [[value, 0.0, 0.0, 0.0]]
        column = pa.array(embeddings, pa.list_(pa.list_(pa.float32(), WIDTH)))
        table = documents(6).set_column(1, EMBEDDING_COLUMN, column).set_column(0, "text_sentences", [[["x"]] * 6])
        write(tmp_path / f"{value}" / "Train" / "a.parquet", table)
        with pytest.raises(DataError, match="row group 1, row 1.*halffloat.*\n.*--dtype float32"):
            run(tmp_path / f"{value}", tmp_path / f"{value}.out", dtype="float16", repair="drop")
        assert not list((tmp_path / f"{value}.out").rglob("*.parquet"))
        run(tmp_path / f"{value}", tmp_path / f"{value}.out", overwrite=True)


def test_partitions_become_columns_of_text(tmp_path: Path) -> None:
    for folder in ("lang=eng_Latn/year=04", "lang=a%2Fb/year=__HIVE_DEFAULT_PARTITION__"):
        write(tmp_path / "in" / "split=train" / folder / "part-0.parquet", documents(2))
    run(tmp_path / "in", tmp_path / "out")
    files = sorted((tmp_path / "out" / "Train").iterdir())
    assert [file.name for file in files] == [
        "lang=a%2Fb-year=__HIVE_DEFAULT_PARTITION__-part-0.parquet",
        "lang=eng_Latn-year=04-part-0.parquet",
    ]
    tables = [pq.ParquetFile(file).read() for file in files]
    assert tables[0].column_names == ["text_sentences", EMBEDDING_COLUMN, "lang", "year"]
    assert [t.column("lang").to_pylist() + t.column("year").to_pylist() for t in tables] == [
        ["a/b", "a/b", None, None],
        ["eng_Latn", "eng_Latn", "04", "04"],
    ]
    assert {t.schema.field("year").type for t in tables} == {pa.string()}


def test_a_partition_that_is_a_column_too_is_the_paths(tmp_path: Path) -> None:
    table = documents(2, lang=pa.array(["x", "y"], pa.large_string()))
    write(tmp_path / "in" / "split=train" / "lang=eng" / "a.parquet", table)
    config = ConvertConfig(source=str(tmp_path / "in"), output=str(tmp_path / "out"))
    plan = make_plan(config)
    assert "`lang` is a partition of the path (text)" in plan.notices[0] and "large_string" in plan.notices[0]
    convert(config, plan)
    found = read(tmp_path / "out" / "Train" / "a.parquet")
    assert found.column_names[0] == "lang" and found.column("lang").to_pylist() == ["eng", "eng"]


def test_paths_say_the_split_and_a_column_that_repeats_it_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "in" / "Train" / "a.parquet", documents(3, split=["train"] * 3))
    write(tmp_path / "in" / "val" / "a.parquet", documents(2, split=["val"] * 2))
    assert run(tmp_path / "in", tmp_path / "out").rows_by_split == {"train": 3, "validation": 2}
    assert "split" not in read(tmp_path / "out" / "Val" / "a.parquet").column_names
    write(tmp_path / "in" / "val" / "a.parquet", documents(2, split=["odd", "even"]))
    run(tmp_path / "in", tmp_path / "out2")
    assert "split" in read(tmp_path / "out2" / "Val" / "a.parquet").column_names


def test_a_column_says_the_split(tmp_path: Path) -> None:
    names = ["train", "val", "train", "test", "validation", "train"]
    write(tmp_path / "in" / "a.parquet", documents(6, split=names, id=list("abcdef")))
    assert run(tmp_path / "in", tmp_path / "out").rows_by_split == {"test": 1, "train": 3, "validation": 2}
    assert read(tmp_path / "out" / "Train" / "a.parquet").column("id").to_pylist() == ["a", "c", "f"]
    found = read(tmp_path / "out" / "Val" / "a.parquet").column("id").to_pylist()
    assert sorted(found) == ["b", "e"], "two names, one folder"


def test_rows_without_a_split_or_with_one_that_has_no_folder_are_named(tmp_path: Path) -> None:
    for value, message in ((None, "row 1: column `part` is null"), ("dev", "row 1: the split `dev`")):
        part = pa.array(["train"] * 5 + [value], pa.string())
        write(tmp_path / "in" / "a.parquet", documents(6, part=part))
        with pytest.raises(DataError, match=f"row group 1, {message}"):
            run(tmp_path / "in", tmp_path / f"{value}", split_column="part")
    assert run(tmp_path / "in", tmp_path / "hive", split_column="part", layout="hive").rows_by_split["dev"] == 1
    assert (tmp_path / "hive" / "split=dev" / "a.parquet").is_file()


def test_splits_are_drawn_by_the_hash_of_the_id_whatever_the_files(tmp_path: Path) -> None:
    ids = [f"doc {i}" for i in range(200)]
    table = documents(200, id=ids)
    write(tmp_path / "one" / "a.parquet", table, rows=50)
    for i in range(2):
        write(tmp_path / "two" / f"{i}.parquet", table.take(list(range(i, 200, 2))), rows=7)
    found = []
    for source in ("one", "two"):
        run(tmp_path / source, tmp_path / f"{source}.out", validation_share=0.2, seed=3)
        found.append(set(read(*(tmp_path / f"{source}.out" / "Val").iterdir()).column("id").to_pylist()))
    shares = {"train": 0.8, "validation": 0.2}
    assert found[0] == found[1] == {name for name in ids if split_of(name, shares, 3) == "validation"}
    assert 20 < len(found[0]) < 60


@pytest.mark.parametrize("text", [True, False])
def test_without_ids_copies_of_a_document_fall_into_one_split(tmp_path: Path, text: bool) -> None:
    table = documents(60, seed=1)
    table = table if text else table.drop_columns("text_sentences")
    write(tmp_path / "in" / "a.parquet", pa.concat_tables([table, table]), rows=9)
    write(tmp_path / "in" / "b.parquet", table.slice(30))
    done = run(tmp_path / "in", tmp_path / "out", validation_share=0.5, text_column="text_sentences" if text else None)
    assert min(done.rows_by_split.values()) > 20
    train, val = (read(*(tmp_path / "out" / name).iterdir()).column(EMBEDDING_COLUMN) for name in ("Train", "Val"))
    assert not set(map(str, train.to_pylist())) & set(map(str, val.to_pylist()))


def test_ids_that_are_not_text_are_told(tmp_path: Path) -> None:
    ids = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.int32([0, 1]).tobytes()), pa.py_buffer(b"\xff")])
    write(tmp_path / "in" / "a.parquet", documents(1, id=ids))
    with pytest.raises(DataError, match="column `id` holds text that is not UTF-8"):
        run(tmp_path / "in", tmp_path / "out")


def test_splits_of_the_source_can_be_drawn_anew(tmp_path: Path) -> None:
    write(tmp_path / "in" / "split=train" / "a.parquet", documents(50, id=[str(i) for i in range(50)]))
    done = run(tmp_path / "in", tmp_path / "out", split_column="none", validation_share=0.3)
    assert done.rows_by_split.keys() == {"train", "validation"}
    assert set(read(tmp_path / "out" / "Val" / "a.parquet").column("split").to_pylist()) == {"train"}


def test_options_that_would_change_nothing_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "Train" / "a.parquet", documents(3))
    for options in ({"validation_share": 0.1}, {"seed": 1}):
        with pytest.raises(ConfigError, match="drawn by hash, but they are as the source's paths say"):
            run(tmp_path / "in", tmp_path / "out", **options)
    for options, message in (
        ({"layout": "lexa"}, 'Did you mean "lexalcm"'),
        ({"dtype": "float64"}, "--dtype"),
        ({"repair": "mend"}, "--repair"),
        ({"skip_damaged_files": True}, "--repair drop"),
        ({"num_workers": 0}, "--workers"),
        ({"concept_dim": 0}, "--concept-dim"),
        ({"seed": -1}, "--seed"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(tmp_path / "in", tmp_path / "out", **options)
    with pytest.raises(ConfigError, match="must not lie in each other"):
        run(tmp_path / "in", tmp_path / "in" / "out")


def test_a_file_outside_of_all_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "in" / "Train" / "a.parquet", documents(3))
    write(tmp_path / "in" / "b.parquet", documents(3))
    with pytest.raises(DataError, match="b.parquet lies in no split"):
        run(tmp_path / "in", tmp_path / "out")


def test_large_row_groups_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexalcm.data.order._CONCEPTS_AT_A_TIME", 64)
    table = documents(300, id=[str(i) for i in range(300)])
    write(tmp_path / "in" / "Train" / "a.parquet", table, rows=150)
    write(tmp_path / "in" / "Train" / "b.parquet", table, rows=5)
    run(tmp_path / "in", tmp_path / "out", num_workers=4)
    for name in ("a", "b"):
        assert read(tmp_path / "out" / "Train" / f"{name}.parquet").equals(table)


def test_supervised_pairs_are_both_converted_and_checked(tmp_path: Path) -> None:
    prompts = pa.array(vectors(1, 2, 1, 2, seed=5), pa.list_(pa.list_(pa.float64())))
    sentences = [["p"], ["p", "q"], ["p"], ["p"]]
    table = documents(4, prompt_sentences=sentences, prompt_sentences_sonar_emb=prompts)
    write(tmp_path / "in" / "Train" / "a.parquet", table)
    with pytest.raises(DataError, match="row 3: counts differ.*column `prompt_sentences_sonar_emb`"):
        run(tmp_path / "in", tmp_path / "out")
    run(tmp_path / "in", tmp_path / "out", repair="drop")
    found = read(tmp_path / "out" / "Train" / "a.parquet").column("prompt_sentences_sonar_emb")
    assert found.type == pa.list_(pa.list_(pa.float32(), WIDTH)) and found.to_pylist() == prompts.to_pylist()[:3]


def test_a_url_is_a_source(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", documents(3))
    memory = fsspec.filesystem("memory")
    memory.pipe("/convert-test/split=train/a.parquet", (tmp_path / "a.parquet").read_bytes())
    run("memory://convert-test", tmp_path / "out")
    assert read(tmp_path / "out" / "Train" / "a.parquet").equals(documents(3))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real corpus is not here")
def test_the_real_corpus_keeps_every_document_and_a_second_conversion_changes_nothing(tmp_path: Path) -> None:
    for split in ("split=validation", "split=test"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / split).symlink_to(REAL / split)
    run(tmp_path / "in", tmp_path / "out")
    run(tmp_path / "out", tmp_path / "again")
    for split, folder in (("validation", "Val"), ("test", "Test")):
        source = read(*sorted((REAL / f"split={split}").iterdir()))
        assert read(*sorted((tmp_path / "out" / folder).iterdir())).equals(source)
    files = sorted(file.relative_to(tmp_path / "out") for file in (tmp_path / "out").rglob("*.parquet"))
    assert files == sorted(file.relative_to(tmp_path / "again") for file in (tmp_path / "again").rglob("*.parquet"))
    for file in files:
        tables = [pq.ParquetFile(tmp_path / name / file).read() for name in ("out", "again")]
        assert tables[0].schema.equals(tables[1].schema, check_metadata=True) and tables[0].equals(tables[1])


@pytest.mark.parametrize("layout", ["lexalcm", "hive"])
def test_what_was_converted_loads_as_a_dataset(tmp_path: Path, layout: str) -> None:
    for split, num in (("train", 5), ("validation", 3)):
        write(tmp_path / "in" / f"split={split}" / "a.parquet", documents(num))
    run(tmp_path / "in", tmp_path / "out", layout=layout)
    datasets = [ConceptParquetDataset(ConceptParquetConfig(path=str(tmp_path / name))) for name in ("in", "out")]
    assert datasets[0].splits == datasets[1].splits == ["train", "validation"]
    for split in datasets[0].splits:
        for a, b in zip(*(list(d.documents(split)) for d in datasets), strict=True):
            assert np.array_equal(a.concepts, b.concepts)
