from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lexalcm.cli.main import main
from lexalcm.data.dataset_card import write_dataset_card
from lexalcm.data.write import NewDocument, write_documents


def write(
    path: Path, *, seed: int = 0, zero_rows: tuple[int, ...] = (), column: str = "text_sentences_sonar_emb"
) -> None:
    rng = np.random.default_rng(seed)
    documents = [NewDocument([f"{seed} {i}", "b"], rng.normal(size=(2, 8)), {"id": f"{seed}-{i}"}) for i in range(10)]
    for row in zero_rows:
        documents[row].concepts[1] = 0.0
    write_documents(path, documents, embedding_column=column, concepts_per_row_group=8)


def verify(*words: object) -> int:
    return main(["lcm", "verify", *map(str, words)])


def test_good_data_says_so_in_its_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "split=train" / "a.parquet")
    write(tmp_path / "split=validation" / "a.parquet", seed=1)
    assert verify(tmp_path) == 0
    told = capsys.readouterr().out
    assert "2, 6 row groups" in told and "20, 20 checked" in told and "train 10, validation 10" in told
    assert told.splitlines()[-1] == "good: 20 documents checked, nothing to complain about"


def test_places_are_listed_as_far_as_asked_and_all_of_them_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "a.parquet", zero_rows=(1, 5, 9))
    report = tmp_path / "report.json"
    assert verify(tmp_path / "in", "--limit-listed", 2, "--json", report) == 1
    told = capsys.readouterr().out
    assert "error: documents with a zero vector (3)" in told and "... and 1 more" in told
    assert "  a.parquet: row group 1, row 1 (row 5 of the file): a zero vector in sentence 1" in told
    assert told.splitlines()[-1] == "broken: 3 errors, 3 of 10 documents among them"
    found = json.loads(report.read_text())
    assert [p["row_in_file"] for p in found["problems"]] == [1, 5, 9]
    assert found["counts"] == {"errors": {"zero_vector": 3}, "warnings": {}, "notes": {}} and found["broken"]
    assert found["problems"][1] == {
        "severity": "error",
        "kind": "zero_vector",
        "reason": "a zero vector in sentence 1",
        "source": "in",
        "file": "a.parquet",
        "row_group": 1,
        "row_in_group": 1,
        "row_in_file": 5,
        "sentence": 1,
        "column": "text_sentences_sonar_emb",
        "other_file": None,
        "other_row": None,
    }


def test_json_alone_is_all_that_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.parquet")
    assert verify(tmp_path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [] and found["totals"]["num_sentences"] == 20


def test_a_card_says_which_columns_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.parquet", zero_rows=(4,), column="emb")
    card = write_dataset_card(tmp_path, name="mine", config={"embedding_column": "emb"}, facts={})
    assert verify(card) == 1
    assert "row 0 (row 4 of the file): a zero vector" in capsys.readouterr().out
    assert verify(tmp_path) == 1 and "a zero vector" in capsys.readouterr().out, "it holds for its folder too"
    card.unlink()
    assert verify(tmp_path) == 1, "without it the usual column is looked for"
    assert "no column `text_sentences_sonar_emb`" in capsys.readouterr().out
    assert verify(tmp_path, "--column", "emb") == 1


def test_warnings_alone_are_no_failure_unless_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet")
    assert verify(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "usable: no errors, 20 warnings"
    assert verify(tmp_path, "--strict") == 1
    assert verify(tmp_path / "a.parquet", "--strict") == 0


def test_a_wrong_command_is_told_in_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "split=train" / "a.parquet")
    for words, message in (
        ((tmp_path / "nowhere",), "does not exist"),
        ((tmp_path, "--split", "trian"), "splits found: train"),
        ((tmp_path, "--width", 0), "`--width` must be at least 1"),
        ((tmp_path, "--workers", 0), "`--workers` must be between 1 and 64"),
        ((tmp_path, "--max-length", 0), "`--max-length` must be at least 1"),
        ((tmp_path, "--limit-listed", -1), "`--limit-listed` must be at least 0"),
        ((tmp_path, "--json", tmp_path), "`--json` must be a file"),
        ((tmp_path, "--json", tmp_path / "split=train" / "a.parquet"), "`--json` must be a file"),
    ):
        assert verify(*words) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and len(error.splitlines()) <= 3
