"""Finding files: splits, partitions, strays, and footers that do not hold."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.discover import DataWarning, discover
from lexalcm.data.filters import FilterConfig
from lexalcm.data.sources import EMBEDDING_COLUMN
from lexalcm.errors import DataError
from tests.data.numbered import LENGTHS, fixed, nested, open_dataset, stands_right, write_table


def put(folder: Path, **columns: object) -> Path:
    return write_table(folder, pa.array(nested(), fixed(pa.float32())), **columns)


def found(root: Path | str) -> dict[str, str | None]:
    return {f.relative: f.split for f in discover(str(root), EMBEDDING_COLUMN)}


def test_hive_partitions_and_capital_folders_name_splits(tmp_path: Path) -> None:
    for name in ("split=train/lang=en", "split=validation", "Train/wiki", "Val", "other"):
        put(tmp_path / name)
    assert found(tmp_path) == {
        "Train/wiki/part-0.parquet": "train",
        "Val/part-0.parquet": "validation",
        "other/part-0.parquet": None,
        "split=train/lang=en/part-0.parquet": "train",
        "split=validation/part-0.parquet": "validation",
    }


def test_a_path_may_be_a_file_or_lead_into_a_split(tmp_path: Path) -> None:
    put(tmp_path / "split=train")
    put(tmp_path / "Val")
    assert found(tmp_path / "split=train" / "part-0.parquet") == {"part-0.parquet": "train"}
    assert found(tmp_path / "split=train") == {"part-0.parquet": "train"}
    assert found(f"file://{tmp_path}/Val") == {"part-0.parquet": "validation"}


@pytest.mark.parametrize("name", ["validated_train_v2", "train_dev", "validation_2"])
def test_a_split_is_a_name_and_no_part_of_one(name: str, tmp_path: Path) -> None:
    put(tmp_path / f"split={name}")
    dataset = open_dataset(tmp_path)
    assert dataset.splits == [name]
    for other in ("train", "validation"):
        with pytest.raises(DataError, match=f"splits found: {name}"):
            dataset.files(other)


def test_partition_values_are_the_text_of_the_path(tmp_path: Path) -> None:
    put(tmp_path / "source=a%2Fb%3Dc" / "topic=__HIVE_DEFAULT_PARTITION__" / "year=04" / "_key=x")
    (file,) = discover(str(tmp_path), EMBEDDING_COLUMN)
    assert file.partitions == {"source": "a/b=c", "topic": None, "year": "04", "_key": "x"}


def test_a_partition_that_is_also_a_column_wins_and_is_told_once(tmp_path: Path) -> None:
    for lang in ("en", "ja"):
        put(tmp_path / f"lang={lang}", lang=["fr"] * 6)
    with pytest.warns(
        DataWarning, match=r"`lang` is a partition of the path \(text\) and a column of the file"
    ) as caught:
        dataset = open_dataset(tmp_path, filters=[FilterConfig(column="lang", value="ja")])
    assert len(caught) == 1
    assert len(list(dataset.documents())) == len(LENGTHS)


def test_strays_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path / "_temporary")
    put(tmp_path / ".hidden")
    for name in ("_SUCCESS", ".part-0.parquet.crc", "README.md", "_metadata.parquet"):
        (tmp_path / name).write_text("x")
    assert list(found(tmp_path)) == ["part-0.parquet"]


def test_a_loop_of_links_ends_and_a_second_name_of_a_file_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "a")
    os.symlink(".", tmp_path / "a" / "again")
    os.symlink("part-0.parquet", tmp_path / "a" / "z.parquet")
    with pytest.warns(DataWarning) as caught:
        assert list(found(tmp_path)) == ["a/part-0.parquet"]
    assert len(caught) == 2


def test_a_folder_called_like_a_file_is_walked(tmp_path: Path) -> None:
    put(tmp_path / "set.parquet")
    assert list(found(tmp_path)) == ["set.parquet/part-0.parquet"]


def test_another_file_system_reads_the_same(tmp_path: Path) -> None:
    put(tmp_path / "split=train")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/numbered", recursive=True)
    try:
        dataset = open_dataset("memory://numbered")
        documents = list(dataset.documents("train"))
    finally:
        memory.rm("/numbered", recursive=True)
    assert [d.row for d in documents] == list(range(6)) and all(stands_right(d) for d in documents)


@pytest.mark.parametrize(
    "root, message",
    [("absent", "does not exist"), ("no-such-scheme://x", "cannot be opened"), ("", "holds no parquet file")],
)
def test_a_path_that_holds_nothing_is_one_error(root: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        discover(root if "://" in root else str(tmp_path / root), EMBEDDING_COLUMN)


def test_a_path_that_is_missing_is_named_as_written_and_as_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        discover("../some/where", EMBEDDING_COLUMN)
    assert "dataset ../some/where does not exist" in str(caught.value)
    assert f"looked at {tmp_path.parent / 'some' / 'where'}" in str(caught.value)


@pytest.mark.parametrize("asked", ["val", "valid", "validation", "Validation"])
def test_a_split_may_be_asked_for_by_its_usual_names(asked: str, tmp_path: Path) -> None:
    put(tmp_path / "split=val")
    put(tmp_path / "Train")
    (source,) = open_dataset(tmp_path).files(asked)
    assert [f.relative for f in source.files] == ["split=val/part-0.parquet"]


def test_a_split_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    put(tmp_path / "split=train")
    put(tmp_path / "split=dev")
    with pytest.raises(DataError, match=r"no files for the split `test`; splits found: dev, train"):
        open_dataset(tmp_path).files("test")


def test_documents_come_in_the_order_of_file_names_whatever_the_order_on_disk(tmp_path: Path) -> None:
    for name in ("b", "a/z", "c", "a/b"):
        put(tmp_path / name)
    assert [f.relative for f in discover(str(tmp_path), EMBEDDING_COLUMN)] == [
        f"{name}/part-0.parquet" for name in ("a/b", "a/z", "b", "c")
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"text"])
def test_a_file_that_is_no_parquet_is_named(content: bytes, tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "half.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"half\.parquet is (empty|not a complete parquet file)"):
        discover(str(tmp_path), EMBEDDING_COLUMN)


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    put(tmp_path)
    os.symlink("gone", tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet is not a complete parquet file"):
        discover(str(tmp_path), EMBEDDING_COLUMN)


def test_thousands_of_tiny_row_groups_are_told_of_and_read(tmp_path: Path) -> None:
    count = 2000
    write_table(tmp_path, pa.array(nested([1] * count), fixed(pa.float32())), text=[["s"]] * count, per_group=1)
    with pytest.warns(DataWarning, match="2,000 row groups of about 1 rows"):
        dataset = open_dataset(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        documents = list(dataset.documents())
    assert [d.row for d in documents] == list(range(count)) and all(stands_right(d) for d in documents)


def test_many_partitions_open(tmp_path: Path) -> None:
    content = (put(tmp_path / "one") / "part-0.parquet").read_bytes()
    for language in range(20):
        for domain in range(60):
            folder = tmp_path / "set" / f"lang={language}" / f"domain={domain}"
            folder.mkdir(parents=True)
            (folder / "x.parquet").write_bytes(content)
    dataset = open_dataset(tmp_path / "set", filters=[FilterConfig(column="lang", value="7")])
    assert dataset.num_rows() == 1200 * 6
    assert len(dataset.files(None)[0].files) == 60


def test_a_damaged_name_of_a_column_stays_on_its_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"\ntext_sentences_sonar_emb": [[[1.0]]]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert "\\ntext_sentences_sonar_emb" in str(caught.value) and len(str(caught.value).splitlines()) <= 3
