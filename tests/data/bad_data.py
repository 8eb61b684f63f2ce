"""Broken and odd parquet sets, found by listing a folder with its ``MANIFEST.json``.

``LEXALCM_BAD_DATA`` names the folder (default: ``shared/data/bad_parquet`` beside the repository); another set laid out
alike runs without a change here.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("LEXALCM_BAD_DATA", Path(__file__).parents[3] / "shared" / "data" / "bad_parquet"))


def _load() -> dict[str, Any]:
    file = FOLDER / "MANIFEST.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"cases": [], "asked_for": {}}


MANIFEST = _load()

needs_bad_data = pytest.mark.skipif(
    not MANIFEST["cases"], reason=f"no MANIFEST.json in {FOLDER} (set LEXALCM_BAD_DATA)"
)


def cases(expected: str | None = None) -> list[Any]:
    """Parameters of a test.

    :param expected: ``ok``, ``row error`` or ``dataset error``; ``None`` for all.
    """
    return [pytest.param(case, id=case["name"]) for case in MANIFEST["cases"] if expected in (None, case["expected"])]


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


def places(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the manifest says that something is wrong."""
    where = case.get("where") or {}
    return where if isinstance(where, list) else [where]
