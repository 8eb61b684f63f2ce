"""Looks over this installation and this machine, and says of each thing whether it is in order and, if not, what mends it.

Shown are the versions of packages beside those needed and tested, what cannot be imported and why, fairseq2's extensions
and groups of commands, processors and GPUs, memory, limits, disks, caches, folders of cards, Slurm, and the environment
variables that change what commands do. Nothing is changed and nothing is downloaded. It works where nothing else does:
what may crash is tried in another process.

Values of variables that may be secret are never shown, so that the report can be pasted into a bug report. Exit code: 1
with errors, else 0.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lexalcm.cli.groups import GroupTable, other_front

if TYPE_CHECKING:
    from lexalcm.doctor.children import Outcome, Task
    from lexalcm.doctor.finding import Finding


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the report as JSON, for scripts and bug reports")


def run(args: Namespace) -> int:
    from lexalcm.doctor.children import Task
    from lexalcm.doctor.finding import guarded
    from lexalcm.doctor.imports import import_everything
    from lexalcm.doctor.report import as_json, as_text, examine

    groups = {name: Task("lexalcm.cli.groups:load_commands", name) for name in GroupTable.discover().names}
    if is_watched := sys.stderr.isatty():
        sys.stderr.write("importing packages, which takes some seconds ...\r")
    outcomes = import_everything(list(groups.values()))
    if is_watched:
        sys.stderr.write("\033[K")
    report = examine(outcomes, guarded("commands", lambda: _look_at_commands(groups, outcomes)))
    if args.json:
        print(json.dumps(as_json(report), indent=2))
    else:
        is_plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
        text = as_text(report, width=min(shutil.get_terminal_size((100, 40)).columns, 100), in_color=not is_plain)
        # A path may hold what the terminal's encoding does not.
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding))
    return 1 if report.count("error") else 0


def _look_at_commands(groups: Mapping[str, Task], outcomes: Mapping[Task, Outcome]) -> Iterator[Finding]:
    """The groups of commands, and whether the command ``fairseq2`` is ours."""
    from lexalcm.doctor.finding import Finding

    good = []
    for name, task in groups.items():
        outcome = outcomes[task]
        if outcome.failure is None:
            good.append(f"{name} ({outcome.value})")
        else:
            text = f"group of commands {name}: {outcome.failure.removeprefix('SetupError: ').rstrip('.')}"
            yield Finding("error", "commands", text, "reinstall or uninstall the package that brings it")
    on_path, own = shutil.which("fairseq2"), Path(sys.executable).with_name("fairseq2")
    activate = f"source {own.with_name('activate')}"
    if (front := other_front()) is not None:
        text = f"{front.dist.name if front.dist else 'another package'} installs a command `fairseq2` as well"
        mend = "none is needed: what is not ours is passed on to it; python -m lexalcm.cli lcm ... is ours always"
        yield Finding("warning", "fairseq2", text, mend)
    if on_path is None and not own.exists():
        text = "there is no command `fairseq2`; python -m lexalcm.cli lcm ... is the same"
        yield Finding("warning", "fairseq2", text, "pip install -c constraints.txt -e .")
    elif on_path is None:
        on_path = f"{own}, which is not on PATH (source {own.with_name('activate')})"
    elif own.exists() and not os.path.samefile(on_path, own):
        text = f"the command `fairseq2` on PATH is {on_path}, of another environment than this one"
        yield Finding("warning", "fairseq2", text, activate)
    if good:
        # In brackets how many commands each has.
        text = f"groups of commands: {', '.join(good)}" + (f"; fairseq2 is {on_path}" if on_path else "")
        yield Finding("ok", "commands", text)
