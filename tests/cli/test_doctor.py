"""``lcm doctor`` works where nothing else does, and says what is broken and what mends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lexalcm.cli.lcm import GROUP
from lexalcm.installation import DOCTOR

ROOT = Path(__file__).parents[2]


def run(*words: str, path: Path | None = None, site: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """
    :param path: A folder whose packages come first.
    :param site: With the packages of this environment. Without them, nothing of the clone may be found by chance.
    """
    environment = {name: value for name, value in os.environ.items() if name != "FAIRSEQ2_EXTENSION_TRACE"}
    environment |= {"COLUMNS": "100", "PYTHONPATH": str(path or ""), **variables}
    command = [sys.executable, *([] if site else ["-S"]), "-m", "lexalcm.cli", "lcm", *words]
    place = None if site else path
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, timeout=300)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What is not in order, by name."""
    assert "Traceback" not in done.stderr, done.stderr
    found = json.loads(done.stdout)
    return {finding["name"]: finding for finding in found["findings"] if finding["status"] != "ok"}


def stub(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(f"{code}\n")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The package and its cards, in a place that has no metadata of an installation."""
    (tmp_path / "lexalcm").symlink_to(ROOT / "lexalcm")
    return tmp_path


def test_without_any_package_it_says_what_is_missing(bare: Path) -> None:
    done = run("doctor", "--json", path=bare, site=False)
    told = findings(done)
    assert done.returncode == 1
    assert {"lexalcm", "packaging", "torch", "fairseq2", "numpy"} <= told.keys()
    assert told["numpy"]["text"] == "numpy is not installed" and told["numpy"]["mend"] == "pip install 'numpy'"
    assert "without being installed" in told["lexalcm"]["text"]
    # Nor does it need the package that compares versions where its own metadata are there.
    (bare / "lexalcm-0.1.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: lexalcm\nVersion: 0.1.0\nRequires-Python: >=3.10\n"
    (bare / "lexalcm-0.1.0.dist-info" / "METADATA").write_text(metadata)
    assert told.keys() - {"lexalcm"} <= findings(run("doctor", "--json", path=bare, site=False)).keys()


def test_without_any_package_commands_explain_themselves_and_point_here(bare: Path) -> None:
    for command in ("train", "prepare", "doctor"):
        shown = run(command, "--help", path=bare, site=False)
        assert shown.returncode == 0 and "usage: fairseq2 lcm" in shown.stdout, shown.stderr
    code = "import lexalcm.cli.groups as groups; print(groups.load_commands('lcm'))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=bare, capture_output=True, text=True)
    assert done.stdout.split() == [str(len(GROUP.commands))], done.stderr
    done = run("assets", path=bare, site=False)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == DOCTOR and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise OSError('libcudart.so.12: cannot open shared object file')", "OSError: libcudart.so.12: cannot open"),
        ("import ctypes; ctypes.string_at(0)", "ends the process by SIGSEGV"),
    ],
)
def test_a_torch_that_cannot_be_imported_is_told_and_so_is_the_rest(tmp_path: Path, code: str, told: str) -> None:
    stub(tmp_path, "torch", code)
    done = run("doctor", path=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    text = " ".join(done.stdout.split())
    assert told in text and f"(in {tmp_path / 'torch'})" in text
    assert "Mend: pip install --force-reinstall 'torch==2.9.1'" in text
    assert "not tried, since what they stand on fails: fairseq2, fairseq2n, torchaudio" in text
    assert "GiB of memory available" in text and "fairseq2 starts with" not in text
    assert done.stdout.splitlines()[-1].startswith("1 error, ")


def test_the_screen_is_as_wide_as_the_terminal_without_colours_or_secrets(tmp_path: Path) -> None:
    stub(tmp_path, "torch", "raise ImportError('hf_verysecret is in the way')")
    done = run("doctor", path=tmp_path, COLUMNS="60", HF_TOKEN="hf_verysecret", PYTHONIOENCODING="ascii")
    lines = done.stdout.splitlines()
    assert not [line for line in lines if len(line) > 60 and " " in line.strip()]
    assert "\033" not in done.stdout and "hf_verysecret" not in done.stdout and "***" in done.stdout
    titles = [line for line in lines[: lines.index("")] if line[0] != " "]
    assert titles == ["Versions", "Imports", "Machine", "Folders", "Environment"]


def test_it_runs_where_another_package_claims_its_group_and_says_so(tmp_path: Path) -> None:
    stub(tmp_path, "torch", "raise ImportError('quick')")
    (tmp_path / "elsewhere.py").write_text("class GROUP: help, commands = 'mine', {}\n")
    (tmp_path / "leaver.py").write_text("import os; os._exit(3)\n")
    for name, entry in (("elsewhere", "lcm = elsewhere:GROUP"), ("leaver", "other = leaver:GROUP")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fairseq2.cli]\n{entry}\n")
    assert run("train", "--help", path=tmp_path).returncode == 2
    done = run("doctor", path=tmp_path)
    text = " ".join(done.stdout.split())
    assert 'The command group "lcm" is claimed by' in text and "elsewhere (elsewhere:GROUP)" in text
    assert "group of commands other: ends the process with exit code 3" in text


@pytest.mark.long
def test_a_whole_installation_is_in_order_in_one_screen() -> None:
    done = run("doctor")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and 24 <= len(lines) <= 45, done.stdout
    assert "all packages above can be imported" in done.stdout
    assert not [line for line in lines if line.startswith("  error")]


@pytest.mark.long
def test_an_extension_that_fails_is_told_and_training_without_it_goes_on(
    tmp_path: Path, tiny_overrides: list[str]
) -> None:
    stub(tmp_path, "sonar", "raise ImportError('cannot import name x from fairseq2.y')")
    told = findings(run("doctor", "--json", path=tmp_path))
    assert "cannot import name x from fairseq2.y" in told["sonar-space"]["text"]
    assert told["extensions"]["text"].startswith("extension sonar:setup_fairseq2_extension of sonar-space")
    done = run("train", "quickstart", "--dry-run", "--config", *tiny_overrides, path=tmp_path)
    assert done.returncode == 0, done.stderr
