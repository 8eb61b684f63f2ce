"""The front shares its name and its groups with other distributions, and breaks none of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELP = Path(__file__).parent / "help"


def run(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-m", "lexalcm.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def distribution(folder: Path, name: str, *, code: str, entries: str) -> None:
    """Puts an installed distribution with one module of its own name into ``folder``."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)


@pytest.mark.parametrize(("words", "file"), [([], "fairseq2.txt"), (["--help"], "fairseq2.txt"), (["lcm"], "lcm.txt")])
def test_overviews_are_the_committed_texts(words: list[str], file: str) -> None:
    assert run(*words).stdout == (HELP / file).read_text()


def test_a_group_claimed_twice_names_both_and_leaves_the_others_alone(tmp_path: Path) -> None:
    code = "class GROUP: help, commands = 'mine', {}\n"
    for name in ("elsewhere", "faraway"):
        distribution(tmp_path, name, code=code, entries=f"[fairseq2.cli]\nother = {name}:GROUP\n")
    done = run("other", path=tmp_path)
    assert done.returncode == 2 and "elsewhere" in done.stderr and "faraway" in done.stderr
    assert "Traceback" not in done.stderr
    assert "train a model by a recipe" in run("lcm", path=tmp_path).stdout


def test_a_group_that_cannot_be_loaded_is_told_and_leaves_the_others_alone(tmp_path: Path) -> None:
    distribution(tmp_path, "broken", code="import not_there_at_all\n", entries="[fairseq2.cli]\nother = broken:GROUP\n")
    overview = run("--help", path=tmp_path)
    assert overview.returncode == 0 and "not_there_at_all" in overview.stdout and "lcm" in overview.stdout
    assert run("other", path=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise RuntimeError('driver too old')", "driver too old"),
        ("import sys; sys.exit('no licence')", "no licence"),
        ("GROUP = 3", "has no attribute 'commands'"),
        ("class GROUP: help, commands = 'mine', ['hello']", "must be a mapping"),
    ],
)
def test_whatever_a_group_does_when_it_is_loaded_is_told(tmp_path: Path, code: str, told: str) -> None:
    distribution(tmp_path, "broken", code=f"{code}\n", entries="[fairseq2.cli]\nother = broken:GROUP\n")
    overview, done = run("--help", path=tmp_path), run("other", path=tmp_path)
    assert overview.returncode == 0 and told in overview.stdout and "lcm" in overview.stdout
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr
    assert "fairseq2 lcm doctor" in done.stderr.splitlines()[-1]


def test_a_damaged_list_of_entry_points_hides_no_group(tmp_path: Path) -> None:
    distribution(tmp_path, "damaged", code="", entries="[fairseq2.cli]\nno value here\n")
    assert run("--help", path=tmp_path).stdout == (HELP / "fairseq2.txt").read_text()


def test_words_of_another_fairseq2_command_are_passed_on_to_it(tmp_path: Path) -> None:
    code = "import sys\ndef main():\n    print('theirs', sys.argv[1:])\n    return 3\n"
    distribution(tmp_path, "theirs", code=code, entries="[console_scripts]\nfairseq2 = theirs:main\n")
    done = run("wav2vec", "train", path=tmp_path)
    assert done.returncode == 3 and done.stdout.strip() == "theirs ['wav2vec', 'train']"
    assert "train a model by a recipe" in run("lcm", path=tmp_path).stdout
    assert "passed on to the fairseq2 command of theirs" in run("--help", path=tmp_path).stdout
