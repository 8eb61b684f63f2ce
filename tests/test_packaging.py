"""What is installed is what is in the clone, by pins that an ordinary index resolves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*(; python_version (<|>=) \"3\.11\")?", line), line
    # pyarrow has two lines: the release that reads null vectors in fixed-size lists needs Python 3.11.
    return {name: Version(version) for name, version in (line.split(";")[0].split("==") for line in lines)}


def requirements() -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text()
    # tomllib is not in Python 3.10; the lists hold one quoted requirement a line.
    return [Requirement(line) for line in re.findall(r'^    "(.+)",$', text, re.MULTILINE)]


def test_pins_are_releases_that_any_index_has() -> None:
    assert not [name for name, version in pins().items() if version.is_prerelease or version.local]
    for file in ("pyproject.toml", "constraints.txt", "Makefile", "README.md"):
        assert not re.search(r"rc[0-9]|--pre\b|extra-index", (ROOT / file).read_text()), file


def test_pins_satisfy_what_the_package_asks() -> None:
    found, asked = pins(), requirements()
    assert len(asked) > 15
    for requirement in asked:
        assert found[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_all_that_is_installed_for_the_package_is_pinned() -> None:
    # An unpinned one changes under users' hands, and may be a pre-release that some indexes do not have.
    needed: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement("lexalcm[test]")]
    while left:
        requirement = left.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in needed:
            continue
        needed.add(key)
        for other in map(Requirement, requires(requirement.name) or ()):
            if other.marker is None or any(other.marker.evaluate({"extra": extra}) for extra in {"", *key[1]}):
                left.append(other)
    names = {name for name, _ in needed}
    assert len(names) > 100
    assert names - {"lexalcm"} <= pins().keys()


def test_every_folder_of_code_is_a_package() -> None:
    folders = {file.parent for file in (ROOT / "lexalcm").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_a_build_carries_every_module_card_recipe_and_grammar(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="setuptools is not in this environment; pip brings its own to build")
    places = ["--build-base", str(tmp_path), "--build-lib", str(tmp_path / "lib")]
    build = [sys.executable, "setup.py", "-q", "build", *places]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {str(f.relative_to(tmp_path / "lib")) for f in (tmp_path / "lib").rglob("*") if f.is_file()}
    wanted = {str(f.relative_to(ROOT)) for f in (ROOT / "lexalcm").rglob("*") if f.suffix in (".py", ".yaml", ".jinja")}
    for folder in ("cards", "recipes"):
        wanted |= {f"lexalcm/_shipped/{f.relative_to(ROOT)}" for f in (ROOT / folder).rglob("*.yaml")}
    assert wanted <= built, wanted - built
    # From another folder, the built package finds its own cards, not the clone's.
    code = "from lexalcm.shipped import shipped_folder as f; print(f('cards'), f('recipes'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    home = (tmp_path / "lib" / "lexalcm" / "_shipped").resolve()
    assert shown.stdout.split() == [str(home / "cards"), str(home / "recipes")], shown.stderr
