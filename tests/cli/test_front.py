"""The command line answers at once, finds groups of other packages, and ends users' faults in a few lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lexalcm.cli.lcm import GROUP
from lexalcm.cli.main import main

HELP = Path(__file__).parent / "help"
HEAVY = ("torch", "fairseq2", "fairseq2n", "numpy", "pyarrow", "sklearn", "matplotlib", "pydantic")


def run(*words: str, path: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-m", "lexalcm.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120)


@pytest.mark.parametrize("command", sorted(GROUP.commands))
def test_help_is_the_committed_text(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit):
        main(["lcm", command, "--help"])
    found = " ".join(capsys.readouterr().out.split())
    assert found == " ".join((HELP / f"lcm_{command}.txt").read_text().split())


def test_no_help_imports_anything_heavy() -> None:
    words = [["--help"], ["lcm", "--help"], *(["lcm", name, "--help"] for name in GROUP.commands)]
    code = f"""
import contextlib, io, sys
from lexalcm.cli.main import main
for words in {words!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(words)
print([name for name in {HEAVY!r} if name in sys.modules], len(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("[] "), done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) < 700


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lmc"], '"lcm"'),
        (["lcm", "trian"], '"train"'),
        (["lcm", "train", "pre1", "--dry-rum"], '"--dry-run"'),
        (["lcm", "train"], "RECIPE"),
    ],
)
def test_a_misspelt_word_offers_the_near_match(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def test_a_users_fault_is_a_few_lines_and_debug_shows_more(tmp_path: Path) -> None:
    words = ["lcm", "train", "quickstart", str(tmp_path / "run"), "--config", "dataset.path=nowhere/at/all"]
    plain, debug = run(*words), run(*words, "--debug")
    assert plain.returncode == debug.returncode == 2
    error = [line for line in plain.stderr.splitlines() if line.startswith("error")]
    assert len(error) == 1 and "nowhere/at/all" in error[0] and str(Path.cwd()) in error[0]
    assert "Traceback" not in plain.stderr and "Traceback" in debug.stderr


def test_groups_of_other_packages_are_found_by_their_entry_point(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(
        "class Command: module, help = 'elsewhere', 'say hello'\n"
        "class GROUP: help, commands = 'a group of another package', {'hello': Command}\n"
        "def add_arguments(parser): parser.add_argument('name')\n"
        "def run(args): print('hello', args.name); return 0\n"
    )
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fairseq2.cli]\nother = elsewhere:GROUP\n")
    assert "a group of another package" in run("--help", path=tmp_path).stdout
    assert run("other", "hello", "you", path=tmp_path).stdout.strip() == "hello you"


def test_cards_and_recipes_are_found_by_name_from_anywhere(tmp_path: Path) -> None:
    shown = run("lcm", "assets", "show", "pre1_objective", cwd=tmp_path)
    assert shown.returncode == 0 and "guidance_dropout" in shown.stdout, shown.stderr
    dumped = run("lcm", "train", "pre1", "--dump-config", "--no-rich", cwd=tmp_path)
    assert dumped.returncode == 0 and "num_steps: 250000" in dumped.stdout, dumped.stderr
