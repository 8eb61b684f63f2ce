"""Broken and odd parquet sets: each is diagnosed as its manifest says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lexalcm.cli.main import main
from tests.data.bad_data import MANIFEST, cases, needs_bad_data, place, places

pytestmark = needs_bad_data


def check(folder: Path, tmp_path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the report."""
    asked = MANIFEST["asked_for"]
    words = ["--width", str(asked["embedding_width"]), "--max-length", str(asked["max_segment_characters"])]
    if "text_sentences" in asked["columns"]:
        words += ["--text-column", "text_sentences"]
    report = tmp_path / "report.json"
    code = main(["lcm", "verify", str(folder), *words, "--json", str(report), *more])
    return code, json.loads(report.read_text(encoding="utf-8"))


def of(report: dict[str, Any], severity: str) -> list[dict[str, Any]]:
    return [problem for problem in report["problems"] if problem["severity"] == severity]


@pytest.mark.parametrize("case", cases())
def test_each_set_is_diagnosed_as_its_manifest_says(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = check(place(case, tmp_path), tmp_path)
    errors, warnings = of(report, "error"), of(report, "warning")
    text = capsys.readouterr().out
    assert sum(sum(kinds.values()) for kinds in report["counts"].values()) == len(report["problems"])
    if case["expected"] == "ok":
        assert code == 0 and not errors, errors
        assert bool(warnings) == case.get("warn", False), warnings
        assert report["totals"]["num_checked"] == case.get("documents", report["totals"]["num_checked"])
        assert text.splitlines()[-1].startswith("usable" if warnings else "good")
        if "splits" in case:
            assert report["totals"]["splits"] == case["splits"]
        return
    assert code == 1 and errors and text.splitlines()[-1].startswith("broken")
    if case["expected"] == "dataset error":
        for where in places(case):
            if where.get("file") is not None:
                told = [e for e in errors if e["file"] == where["file"]]
                assert told and where["file"] in text
                assert "column" not in where or {e["column"] for e in told} == {where["column"]}
                assert all(e["row_in_file"] is None for e in errors), "one problem a file, not one a row"
        return
    found = {(e["file"], e["row_in_file"]) for e in errors}
    assert found == {(row["file"], row["row_in_file"]) for row in case["bad_rows"]}
    assert report["totals"]["num_documents"] == case["documents"]
    assert report["num_bad_documents"] == case["documents"] - case["documents_good"]
    for where in places(case):
        told = next(e for e in errors if (e["file"], e["row_in_file"]) == (where["file"], where["row_in_file"]))
        for name in ("row_group", "row_in_group", "sentence", "column"):
            if name in where and where[name] != "last":
                assert told[name] == where[name], (name, told)


@pytest.mark.parametrize("case", [c for c in cases() if c.values[0].get("warn")])
def test_strict_takes_warnings_for_errors(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = check(place(case, tmp_path), tmp_path, "--strict")
    assert code == 1 and report["broken"]
    assert "not good enough for --strict" in capsys.readouterr().out


@pytest.mark.parametrize(
    "case", [c for c in cases() if c.values[0]["name"] in ("duplicate_documents", "long_segments")]
)
def test_warnings_name_their_places(case: dict[str, Any], tmp_path: Path) -> None:
    _, report = check(place(case, tmp_path), tmp_path)
    told = [p for p in of(report, "warning") if p["kind"] in ("duplicate", "long_sentence")]
    assert {(p["file"], p["row_in_file"]) for p in told} == {(w["file"], w["row_in_file"]) for w in places(case)}
