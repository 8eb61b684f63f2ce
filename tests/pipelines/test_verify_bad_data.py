"""Broken and odd parquet sets, found by listing a folder: each is diagnosed as its manifest says.

``LEXALCM_BAD_DATA`` names the folder (default: ``shared/data/bad_parquet`` beside the repository) with its
``MANIFEST.json``; another set laid out alike runs without a change here.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lexalcm.cli.main import main

FOLDER = Path(os.environ.get("LEXALCM_BAD_DATA", Path(__file__).parents[3] / "shared" / "data" / "bad_parquet"))


def load_manifest() -> dict[str, Any]:
    file = FOLDER / "MANIFEST.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"cases": [], "asked_for": {}}


MANIFEST = load_manifest()
CASES = [pytest.param(case, id=case["name"]) for case in MANIFEST["cases"]]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no MANIFEST.json in {FOLDER} (set LEXALCM_BAD_DATA)")


def place(case: dict[str, Any], tmp_path: Path) -> Path:
    """The case's folder, made here where the manifest only says how."""
    if case.get("stored", True):
        return FOLDER / case["path"]
    archive = FOLDER / f"{case['name']}.tar"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path, filter="data")
        inner = tmp_path / case["name"]
        return inner if inner.is_dir() else tmp_path
    if "symlink" in case["how_to_make"]:
        folder = tmp_path / "d"
        folder.mkdir()
        (folder / "good.parquet").write_bytes((FOLDER / "stray_files" / "part-00000.parquet").read_bytes())
        os.symlink(".", folder / "again")
        return folder
    pytest.fail(f"cannot make {case['name']}: {case['how_to_make']}")


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


def places(case: dict[str, Any]) -> list[dict[str, Any]]:
    where = case.get("where") or {}
    return where if isinstance(where, list) else [where]


@pytest.mark.parametrize("case", CASES)
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


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0].get("warn")])
def test_strict_takes_warnings_for_errors(
    case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = check(place(case, tmp_path), tmp_path, "--strict")
    assert code == 1 and report["broken"]
    assert "not good enough for --strict" in capsys.readouterr().out


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0]["name"] in ("duplicate_documents", "long_segments")])
def test_warnings_name_their_places(case: dict[str, Any], tmp_path: Path) -> None:
    _, report = check(place(case, tmp_path), tmp_path)
    told = [p for p in of(report, "warning") if p["kind"] in ("duplicate", "long_sentence")]
    assert {(p["file"], p["row_in_file"]) for p in told} == {(w["file"], w["row_in_file"]) for w in places(case)}
