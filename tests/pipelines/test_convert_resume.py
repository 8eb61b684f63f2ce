"""A conversion goes on after any interruption, refuses what is not its own, and leaves no half file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexalcm.data.write import NewDocument, write_documents
from lexalcm.data.write_table import ParquetTableWriter
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.plan import make_plan
from lexalcm.pipelines.convert.run import Conversion, convert


def run(source: Path, output: Path, **options: Any) -> Conversion:
    config = ConvertConfig(source=str(source), output=str(output), **options)
    config.check()
    return convert(config, make_plan(config))


def corpus(folder: Path, *, files: int = 4, documents: int = 40, spoil: bool = False) -> Path:
    rng = np.random.default_rng(0)
    for i in range(files):
        made = []
        for j in range(documents):
            concepts = rng.normal(size=(3, 8))
            if spoil and i == 1 and j == 5:
                concepts[1] = 0.0
            made.append(NewDocument([f"{i}.{j}.{k}" for k in range(3)], concepts, {"id": f"{i}-{j}"}))
        write_documents(folder / f"part-{i}.parquet", made, concepts_per_row_group=30)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the card, which has the folder's name."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "dataset.yaml"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


class Fault(Exception):
    """What is injected."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source, and what an undisturbed run makes of it."""
    folder = tmp_path_factory.mktemp("whole")
    source = corpus(folder / "in", documents=20)
    run(source, folder / "out", validation_share=0.3, num_workers=1)
    return source, folder / "out"


@pytest.mark.parametrize(
    ("method", "call"), [*(("write", n) for n in (0, 1, 2, 3, 5, 8, 11, 13)), *(("close", n) for n in range(8))]
)
def test_killed_anywhere_a_rerun_ends_the_same(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    source, undisturbed = whole
    calls = 0
    original: Callable[..., Any] = getattr(ParquetTableWriter, method)

    def failing(self: ParquetTableWriter, *words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > call:
            raise Fault
        return original(self, *words)

    monkeypatch.setattr(ParquetTableWriter, method, failing)
    with pytest.raises(Fault):
        run(source, tmp_path / "out", validation_share=0.3)
    for file in (tmp_path / "out").glob("*/*.parquet"):
        assert file.read_bytes() == (undisturbed / file.relative_to(tmp_path / "out")).read_bytes()
    monkeypatch.undo()
    run(source, tmp_path / "out", validation_share=0.3)
    assert contents(tmp_path / "out") == contents(undisturbed)


def test_kill_minus_nine_and_a_rerun_end_the_same(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in", files=20, documents=60)
    run(source, tmp_path / "whole")
    words = ["lcm", "convert", str(source), str(tmp_path / "out"), "--workers", "1"]
    command = [sys.executable, "-m", "lexalcm.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out" / "_convert").glob("*.done.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no file was converted"
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (tmp_path / "out" / "conversion.json").exists(), "it was killed too late to test anything"
    done = run(source, tmp_path / "out")
    assert 0 < done.num_new < 20
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_rerun_does_only_what_is_missing(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in")
    assert run(source, tmp_path / "out").num_new == 4
    before = contents(tmp_path / "out")
    assert run(source, tmp_path / "out").num_new == 0
    (tmp_path / "out" / "Train" / "part-2.parquet").unlink()
    assert run(source, tmp_path / "out").num_new == 1
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dtype": "float32"}, "dtype"),
        ({"layout": "hive"}, "layout"),
        ({"seed": 7}, "seed"),
        ({"validation_share": 0.5}, "shares"),
    ],
)
def test_other_settings_are_refused_by_name_and_begin_anew_on_request(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    source = corpus(tmp_path / "in")
    run(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(ConfigError, match=rf"begun with {told} .*\n.*--overwrite"):
        run(source, tmp_path / "out", **change)
    assert contents(tmp_path / "out") == before
    assert run(source, tmp_path / "out", overwrite=True, **change).num_new == 4
    run(source, tmp_path / "fresh", **change)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_another_source_is_refused_by_file(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in")
    run(source, tmp_path / "out")
    (source / "part-9.parquet").write_bytes((source / "part-0.parquet").read_bytes())
    with pytest.raises(ConfigError, match="part-9.parquet is new"):
        run(source, tmp_path / "out")
    (source / "part-9.parquet").unlink()
    (source / "part-3.parquet").rename(tmp_path / "kept")
    with pytest.raises(ConfigError, match="part-3.parquet is gone"):
        run(source, tmp_path / "out")
    pq.write_table(pq.read_table(tmp_path / "kept").slice(1), source / "part-3.parquet")
    with pytest.raises(ConfigError, match="part-3.parquet has changed"):
        run(source, tmp_path / "out")


def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in", files=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="not empty, and no conversion made it"):
            run(source, tmp_path / "out", overwrite=overwrite)
    assert contents(tmp_path / "out") == {"thesis.txt": b"years of work"}


def test_beginning_anew_leaves_what_others_put_beside(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in", files=1)
    run(source, tmp_path / "out")
    (tmp_path / "out" / "Train" / "mine.txt").write_text("kept")
    run(source, tmp_path / "out", overwrite=True, layout="hive")
    assert [f.name for f in (tmp_path / "out" / "Train").iterdir()] == ["mine.txt"]


def test_bad_rows_stop_or_are_listed_with_places(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in", spoil=True)
    told = r"part-1.parquet: row group 0, row 5: a zero vector in sentence 1.\n.*--repair drop"
    with pytest.raises(DataError, match=told):
        run(source, tmp_path / "out")
    done = run(source, tmp_path / "out", repair="drop")
    assert (done.num_kept, done.num_dropped, done.dropped_by_kind) == (159, 1, {"zero_vector": 1})
    told = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert told["files"][1]["dropped"] == [{"row_group": 0, "row": 5, "reason": "a zero vector in sentence 1"}]
    with pytest.raises(DataError, match="part-1.parquet: row group 0, row 5"):
        run(source, tmp_path / "out")


def test_damaged_files_are_passed_over_on_request_and_listed(tmp_path: Path) -> None:
    source = corpus(tmp_path / "in")
    whole = (source / "part-2.parquet").read_bytes()
    (source / "part-2.parquet").write_bytes(whole[:-100])
    middle = bytearray((source / "part-3.parquet").read_bytes())
    middle[200:600] = b"\xff" * 400
    (source / "part-3.parquet").write_bytes(middle)
    with pytest.raises(DataError, match="part-2.parquet is not a complete parquet file"):
        run(source, tmp_path / "out", repair="drop")
    done = run(source, tmp_path / "out", repair="drop", skip_damaged_files=True)
    assert done.num_kept == 80
    told = json.loads((tmp_path / "out" / "conversion.json").read_text())["damaged_files"]
    assert told.keys() == {"part-2.parquet", "part-3.parquet"}
    assert not list((tmp_path / "out").rglob("*part-3*"))


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    embeddings = pa.array([[[0.0, 0.0]]] * 3, pa.list_(pa.list_(pa.float32(), 2)))
    (tmp_path / "in").mkdir()
    table = pa.table({"text_sentences": [["x"]] * 3, "text_sentences_sonar_emb": embeddings})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    with pytest.raises(DataError, match="nothing was converted"):
        run(tmp_path / "in", tmp_path / "out", repair="drop")
