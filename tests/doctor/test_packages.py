"""Versions are compared with what is needed and what was tested, for all that stands below lexalcm."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from lexalcm.doctor.finding import Finding
from lexalcm.doctor.packages import TESTED, look_at_requirements, look_at_versions

ROOT = Path(__file__).parents[2]


def claim(folder: Path, name: str, release: str, *needs: str) -> None:
    """Puts an installed distribution of that name and version into ``folder``."""
    info = folder / f"{name}-{release}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {release}", *(f"Requires-Dist: {n}" for n in needs)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if "==" in line:
            name, pin = line.split(";")[0].strip().split("==")
            pins.setdefault(name, []).append(pin)
    assert {name: tuple(pins[name]) for name in TESTED} == TESTED


def test_this_environment_is_in_order() -> None:
    assert {finding.status for finding in [*look_at_versions(), *look_at_requirements()]} == {"ok"}


def test_a_version_that_does_not_fit_is_an_error_with_its_mend(place: Path) -> None:
    claim(place, "torch", "2.8.0")
    assert named("torch", look_at_versions()) == [
        Finding(
            "error",
            "torch",
            "torch 2.8.0 is installed, but torch==2.9.1 is needed",
            "pip install --force-reinstall 'torch==2.9.1'",
        )
    ]


def test_another_build_of_the_same_release_is_in_order(place: Path) -> None:
    claim(place, "torch", "2.9.1+cpu")
    assert not named("torch", look_at_versions())


def test_a_series_that_was_not_tried_is_a_warning_and_another_release_of_a_series_a_note(place: Path) -> None:
    claim(place, "stopes", "3.0.0")
    claim(place, "numpy", "2.3.1")
    (warning,) = named("stopes", look_at_versions())
    assert warning.status == "warning" and "3.0.0 is installed, which was not tried; 2.2.1 was" in warning.text
    (line,) = named("versions", look_at_versions())
    assert line.status == "ok" and "numpy 2.3.1 (*)" in line.text and "torch 2.9.1," in line.text


def test_what_an_interrupted_installation_leaves_is_not_installed(place: Path) -> None:
    (place / "wtpsplit-2.2.2.dist-info").mkdir()
    (error,) = named("wtpsplit", look_at_versions())
    assert error.status == "error" and error.text == "wtpsplit is not installed"
    assert error.mend == "pip install 'wtpsplit>=2.1'"


def test_what_a_package_needs_is_looked_for_down_to_the_bottom(place: Path) -> None:
    claim(place, "xxhash", version("xxhash"), "never-heard-of>=3", "regex<2000", "other; extra == 'other'", "?broken?")
    errors = [finding for finding in look_at_requirements() if finding.status == "error"]
    assert sorted(error.text for error in errors) == [
        f"xxhash {version('xxhash')} needs never-heard-of>=3, but it is not installed",
        f"xxhash {version('xxhash')} needs regex<2000, but {version('regex')} is installed",
    ]


def test_metadata_in_two_places_are_told(place: Path) -> None:
    installed = version("xxhash")
    claim(place, "xxhash", "3.999")
    (warning,) = named("xxhash", look_at_requirements())
    assert warning.status == "warning"
    assert f"3.999 in {place}" in warning.text and f"{installed} in " in warning.text


def named(name: str, findings: object) -> list[Finding]:
    return [finding for finding in findings if finding.name == name]  # type: ignore[attr-defined]
