"""House rules that a machine can check."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lexalcm"
FILES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN = {
    "evaluates data": r"(?<![\w.])(eval|exec)\(",
    "unpickles": r"\bpickle\.loads?\(|weights_only=False|allow_pickle=True",
    "hides a fault": r"nan_to_num|except:\s*$|except (Base)?Exception:\s*\n\s*pass",
    "is unfinished": r"TODO|FIXME|raise NotImplementedError",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_does_what_is_forbidden(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    found = [f"{file.relative_to(PACKAGE)}: {m.group(0)}" for file in FILES for m in pattern.finditer(file.read_text())]
    assert not found, "\n".join(found)


def test_files_are_small() -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in FILES if file.name != "__init__.py"}
    assert statistics.median(lengths.values()) <= 130
    assert max(lengths.values()) <= 400, max(lengths, key=lambda f: lengths[f])


def test_code_is_ascii_and_lines_fit_the_screen() -> None:
    for file in FILES:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            assert line.isascii(), f"{file}:{number} is not ASCII"
            assert len(line) <= 130, f"{file}:{number} has {len(line)} characters"


def test_no_unnamed_places() -> None:
    assert not [file for file in FILES if file.stem in ("utils", "common", "misc", "helpers")]
