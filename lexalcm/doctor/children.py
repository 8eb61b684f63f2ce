"""Does in another process what may end it: imports of shared libraries that do not fit, and code of other packages.

A child does its tasks in order and tells each before it begins, so that it is known at which one it died or hung; the
tasks behind that one are given to a new child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from selectors import EVENT_READ, DefaultSelector
from typing import Any, Final

from lexalcm.doctor.finding import first_line

TASK_SECONDS: Final = 120.0
"""After which a task is given up. A first import of torch from a network file system takes about half of it."""

_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lexalcm.doctor.in_child import main; main(int(sys.argv[2]), json.loads(sys.argv[3]))"
)
_TAIL_BYTES: Final = 4000


@dataclass(frozen=True)
class Task:
    """A function, and the text that it takes."""

    function: str
    """``module:name``; what it returns must fit into JSON."""

    argument: str = ""
    """Names the task to those that need it; they are passed over when it fails."""

    needs: str | None = None
    """The argument of an earlier task that must not fail."""


@dataclass(frozen=True)
class Outcome:
    """What a task returned, or why it did not."""

    value: Any = None

    failure: str | None = None
    """One line."""

    is_tried: bool = True


def run_tasks(tasks: Sequence[Task], *, seconds: float = TASK_SECONDS) -> dict[Task, Outcome]:
    """
    :param seconds: That each task may take.
    """
    outcomes: dict[Task, Outcome] = {}
    left = list(tasks)
    while left:
        outcomes |= _run_child(left, seconds)
        for task in left:
            failed = {done.argument for done, outcome in outcomes.items() if outcome.failure is not None}
            if task not in outcomes and task.needs in failed:
                outcomes[task] = Outcome(failure=f"needs {task.needs}", is_tried=False)
        left = [task for task in left if task not in outcomes]
    return outcomes


def _run_child(tasks: list[Task], seconds: float) -> dict[Task, Outcome]:
    """What a child does of the tasks; at least the first, which is its fault if it cannot even start."""
    reading, writing = os.pipe()
    specs = json.dumps([[task.function, task.argument, task.needs] for task in tasks])
    # The child looks for packages where this process does, whether it was started as a script or as a module.
    command = [sys.executable, "-c", _START, json.dumps(sys.path), str(writing), specs]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[writing],
        start_new_session=True,  # so that whatever it starts can be ended with it
    )
    os.close(writing)
    try:
        lines, said, is_late = _listen(child, reading, seconds)
    finally:
        os.close(reading)
        _end(child)
    outcomes: dict[Task, Outcome] = {}
    for line in lines:
        number, value, failure, is_tried = json.loads(line)
        outcomes[tasks[number]] = Outcome(value, failure, is_tried)
    if (culprit := next((task for task in tasks if task not in outcomes), None)) is not None:
        outcomes[culprit] = Outcome(failure=f"took over {seconds:g} s" if is_late else _death(child.returncode, said))
    return outcomes


def _listen(child: subprocess.Popen[bytes], reading: int, seconds: float) -> tuple[list[bytes], str, bool]:
    """Returns the child's whole lines, the end of what it wrote to standard error, and whether it was given up."""
    assert child.stderr is not None
    results, said = b"", b""
    deadline = time.monotonic() + seconds
    is_late = False
    with DefaultSelector() as selector:
        selector.register(reading, EVENT_READ)
        selector.register(child.stderr, EVENT_READ)
        while selector.get_map():
            # What the child has started may outlive it and keep the pipes open.
            has_ended = child.poll() is not None
            events = selector.select(0 if has_ended else 0.1)
            if has_ended and not events:
                break
            for key, _ in events:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fd == reading:
                    results += chunk
                    deadline = time.monotonic() + seconds
                else:
                    said = (said + chunk)[-_TAIL_BYTES:]
            if not has_ended and time.monotonic() > deadline:
                is_late = True
                break
    return results.split(b"\n")[:-1], said.decode("utf-8", "replace"), is_late


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert child.stderr is not None
    child.stderr.close()


def _death(code: int, said: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"ends the process by {name}{hint}"
    lines = [line for line in said.splitlines() if line.strip()]
    told = f": {first_line(lines[-1])}" if lines and code != 0 else ""
    return f"ends the process with exit code {code}{told}"
