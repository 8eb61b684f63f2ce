"""Golden vectors, found by listing a folder and dispatched on the ``kind`` in each case's ``case.json``.

``LEXALCM_GOLDEN`` names the folder (default: ``shared/golden`` beside the repository); another set laid out alike runs
without a change here. A kind nobody knows fails.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import kinds_lexa
import kinds_meta
import kinds_meta_models

FOLDER = Path(os.environ.get("LEXALCM_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


def found_below(folder: Path, name: str) -> list[Any]:
    """Every file of this name, or one parameter that skips with the reason."""
    files = sorted(folder.rglob(name)) if folder.is_dir() else []
    if not files:
        reason = f"no {name} below {folder} (set LEXALCM_GOLDEN)"
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(file, id=file.parent.relative_to(folder).as_posix()) for file in files]


def check(file: Path) -> None:
    case = json.loads(file.read_text(encoding="utf-8"))
    kind = case["kind"]
    # Both sets have a "loss". LexaLCM's cases tell a revision, or that they pin the proposal; Meta's do neither.
    kinds = kinds_lexa if "revision" in case or "proposal" in case else kinds_meta
    assert kind in kinds.KINDS, f"{file}: nobody knows the kind {kind}"
    kinds.KINDS[kind](file.parent, case)


@pytest.mark.parametrize("file", found_below(FOLDER, "case.json"))
def test_golden_case(file: Path) -> None:
    check(file)


@pytest.mark.parametrize("file", found_below(FOLDER, "full_keys.json"))
def test_full_size_keys_are_the_published_ones(file: Path) -> None:
    kinds_lexa.check_full_keys(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", found_below(FOLDER, "param_counts.json"))
def test_full_size_archs_are_those_of_meta(file: Path) -> None:
    kinds_meta_models.check_param_counts(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("extra", [{}, {"revision": "final"}], ids=["meta", "lexa"])
def test_an_unknown_kind_fails(extra: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "any_name" / "case.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"kind": "telepathy", **extra}))
    with pytest.raises(AssertionError, match="telepathy"):
        check(file)


def test_cases_are_found_at_any_depth_and_a_missing_folder_is_a_reason(tmp_path: Path) -> None:
    for name in ("b", "a/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "case.json").write_text("{}")
    assert [param.id for param in found_below(tmp_path, "case.json")] == ["a/deep", "b"]
    (absent,) = found_below(tmp_path / "absent", "case.json")
    assert "LEXALCM_GOLDEN" in absent.marks[0].kwargs["reason"]
