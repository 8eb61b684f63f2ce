"""What crashes, ends the process or hangs is told of the task that did it, and the others are done all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexalcm.doctor.children import Outcome, Task, run_tasks

TASKS = """
import ctypes, os, signal, sys, time

def double(text): return 2 * text
def fails(text): raise RuntimeError("first line\\nsecond line")
def exits(text): sys.exit("no thanks")
def leaves(text): sys.stderr.write("fatal: wrong driver\\n"); sys.stderr.flush(); os._exit(7)
def crashes(text): ctypes.string_at(0)
def is_killed(text): os.kill(os.getpid(), signal.SIGKILL)
def hangs(text): time.sleep(60)
def chatters(text): print("noise " * 100_000, file=sys.stderr); print("[0, 1, null, true]"); return text
"""


@pytest.fixture(autouse=True)
def tasks_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "its_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)


def task(name: str, argument: str = "", *, needs: str | None = None) -> Task:
    return Task(f"its_tasks:{name}", argument, needs)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fails", "RuntimeError: first line"),
        ("exits", "SystemExit: no thanks"),
        ("leaves", "ends the process with exit code 7: fatal: wrong driver"),
        ("crashes", "ends the process by SIGSEGV"),
        ("is_killed", "ends the process by SIGKILL (out of memory?)"),
    ],
)
def test_what_fails_is_told_and_the_other_tasks_are_done(name: str, told: str) -> None:
    before, bad, after = task("double", "a"), task(name, "b"), task("double", "c")
    outcomes = run_tasks([before, bad, after])
    assert outcomes == {before: Outcome("aa"), bad: Outcome(failure=told), after: Outcome("cc")}


def test_what_hangs_is_given_up() -> None:
    bad, after = task("hangs", "b"), task("double", "c")
    outcomes = run_tasks([bad, after], seconds=2.0)
    assert outcomes == {bad: Outcome(failure="took over 2 s"), after: Outcome("cc")}


@pytest.mark.parametrize("name", ["fails", "crashes"])
def test_what_stands_on_a_failure_is_not_tried(name: str) -> None:
    above, higher, beside = task("leaves", "b", needs="a"), task("leaves", "c", needs="b"), task("double", "d")
    outcomes = run_tasks([task(name, "a"), above, higher, beside])
    assert outcomes[above] == Outcome(failure="needs a", is_tried=False)
    assert outcomes[higher] == Outcome(failure="needs b", is_tried=False)
    assert outcomes[beside] == Outcome("dd")


def test_what_a_task_prints_does_not_disturb() -> None:
    assert run_tasks([task("chatters", "a")]) == {task("chatters", "a"): Outcome("a")}
