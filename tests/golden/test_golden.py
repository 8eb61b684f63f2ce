"""Golden vectors, found by listing a folder and dispatched on the ``kind`` in each case's ``case.json``.

``LEXALCM_GOLDEN`` names the folder (default: ``shared/golden`` beside the repository); another set laid out alike runs
without a change here. A kind nobody knows fails; kinds that a later issue builds are skipped by name.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import kinds_lexa  # noqa: E402
import kinds_meta  # noqa: E402

FOLDER = Path(os.environ.get("LEXALCM_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
FILES = sorted(FOLDER.rglob("case.json")) if FOLDER.is_dir() else []


def layout_of(case: dict[str, Any]) -> Any:
    """LexaLCM's cases tell a revision, or that they pin the proposal; Meta's do neither."""
    return kinds_lexa if "revision" in case or "proposal" in case else kinds_meta


@pytest.mark.skipif(not FILES, reason=f"no case.json below {FOLDER} (set LEXALCM_GOLDEN)")
@pytest.mark.parametrize("file", [pytest.param(f, id=f.parent.relative_to(FOLDER).as_posix()) for f in FILES])
def test_golden_case(file: Path) -> None:
    case = json.loads(file.read_text(encoding="utf-8"))
    kinds = layout_of(case)
    kind = case["kind"]
    if kind in kinds.LATER:
        pytest.skip(f"{kind}: {kinds.LATER[kind]}")
    assert kind in kinds.KINDS, f"{file}: nobody knows the kind {kind}"
    kinds.KINDS[kind](file.parent, case)


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("full_keys.json")) if FOLDER.is_dir() else [])
def test_full_size_keys_are_the_published_ones(file: Path) -> None:
    kinds_lexa.check_full_keys(json.loads(file.read_text(encoding="utf-8")))
