from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lexalcm.cli.main import main
from lexalcm.data.write import NewDocument, write_documents


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two files of ten documents in two languages; in the second a zero vector, in row 3."""
    for number, lang in enumerate(("eng_Latn", "jpn_Jpan")):
        rng = np.random.default_rng(number)
        documents = [NewDocument(["a", "b"], rng.normal(size=(2, 8)), {"id": f"{lang}-{i}"}) for i in range(10)]
        if number:
            documents[3].concepts[1] = 0.0
        write_documents(tmp_path / "in" / "split=train" / f"lang={lang}" / "part-0.parquet", documents)
    return tmp_path / "in"


def convert(*words: object) -> int:
    return main(["lcm", "convert", *map(str, words)])


def test_files_rows_totals_and_the_card_are_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert convert(source, out, "--repair", "drop") == 0
    told = capsys.readouterr().out
    assert "split=train/lang=eng_Latn/part-0.parquet: kept 10, dropped 0\n" in told
    assert "split=train/lang=jpn_Jpan/part-0.parquet: kept 9, dropped 1 (zero vector: 1)\n" in told
    assert "2 file(s): 19 documents kept (train: 19), 1 dropped" in told
    assert "splits: as the source's paths say" in told and f"dataset.name={out / 'dataset.yaml'}" in told
    assert json.loads((out / "conversion.json").read_text())["num_kept"] == 19
    assert convert(source, out, "--repair", "drop") == 0
    assert "2 file(s), 2 of them by an earlier run: 19 documents kept" in capsys.readouterr().out


def test_a_dry_run_tells_places_and_columns_and_writes_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (source, out, "--dry-run", "--split-column", "none", "--dtype", "float32")
    assert convert(*words) == 0
    told = capsys.readouterr().out
    name = "split=train-lang=jpn_Jpan-part-0.parquet"
    assert f"part-0.parquet: 10 documents -> {out / 'Train' / name}, {out / 'Val' / name}\n" in told
    assert "splits: by hash of the column `id`, seed 0: train 0.95, validation 0.05\n" in told
    assert "lang: string (from the path)\n" in told
    assert "(was list<element: fixed_size_list<element: halffloat>[8]>)" in told
    assert not out.exists()


def test_faults_are_told_in_a_few_lines(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for words, message in (
        ((source, out), "row group 0, row 3: a zero vector in sentence 1"),
        ((tmp_path / "nowhere", out), "does not exist"),
        ((source, out, "--layout", "lexalmc"), 'Did you mean "lexalcm"'),
        ((source, out, "--seed", 3), "--seed is for splits drawn by hash"),
        ((source, out, "--split-column", "lang"), "is a partition of the path"),
        ((source, out, "--split-column", "part"), "has no column `part`"),
        ((source, out, "--text-column", "text"), "Name it by --text-column"),
        ((source, out, "--concept-dim", 1024), "8 wide, but 1024 is expected"),
        ((source, "s3://bucket/out"), "OUT must be a folder on this machine"),
        ((source, source / "out"), "must not lie in each other"),
    ):
        assert convert(*words) == 2
        err = capsys.readouterr().err
        assert message in err and len(err.splitlines()) <= 3
        assert not list(out.rglob("*.parquet")) or "eng_Latn" in str(list(out.rglob("*.parquet")))


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*words: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lexalcm.pipelines.convert.convert_file.convert_unit", interrupted)
        assert convert(source, tmp_path / "out") == 130
    assert "run the same command" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.parquet"))
    assert convert(source, tmp_path / "out", "--repair", "drop") == 0


def test_what_was_converted_trains(tiny_corpus: Path, tiny_overrides: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert convert(tiny_corpus, out) == 0
    overrides = [field for field in tiny_overrides if not field.startswith("dataset.path")]
    card = f"dataset.name={out / 'dataset.yaml'}"
    words = ["lcm", "train", "quickstart", "--dry-run", "--config", "dataset.path=null", card, *overrides]
    assert main(words) == 0
