"""Can what is installed be imported? Packages, extensions of fairseq2, libsndfile."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

from lexalcm.doctor.children import Outcome, Task, run_tasks
from lexalcm.doctor.finding import Finding
from lexalcm.doctor.packages import TESTED, asked
from lexalcm.installation import DOCTOR, installed_entries, installed_version

EXTENSIONS: Final = "fairseq2.extension"

_MODULES: Final = {
    "sonar-space": "sonar.inference_pipelines.text",
    "stopes": "stopes.core.launcher",
}
"""Of packages whose module of the same name imports little: what is used here."""

_BELOW: Final = {
    "fairseq2n": "torch",
    "fairseq2": "fairseq2n",
    "torchaudio": "torch",
    "transformers": "torch",
    "wtpsplit": "torch",
    "sonar-space": "fairseq2",
}

_DEVICES: Final = Task("lexalcm.doctor.in_child:devices", needs="torch")
_SNDFILE: Final = Task("lexalcm.doctor.in_child:libsndfile")
_START: Final = Task("lexalcm.doctor.in_child:start_fairseq2", needs="fairseq2")


def import_everything(others: Sequence[Task]) -> dict[Task, Outcome]:
    """Does in two children at once, of about the same length, what takes seconds and may crash.

    :param others: To be done besides.
    """
    fairseq2 = [_import(name) for name in ("torch", "fairseq2n", "fairseq2")]
    extensions = [*(_entry(entry) for entry in _extensions()), _START]
    packages = [_import(name) for name in TESTED if name not in ("torch", "fairseq2n", "fairseq2", "sonar-space")]
    halves = [
        [*fairseq2, *extensions, _import("sonar-space")],
        [_import("torch"), _DEVICES, *packages, _SNDFILE, *others],
    ]
    with ThreadPoolExecutor(len(halves)) as pool:
        first, second = pool.map(run_tasks, halves)
    # Both import torch; a failure in either of them counts.
    return {**first, **second, **{task: outcome for task, outcome in first.items() if outcome.failure is not None}}


def look_at_imports(outcomes: Mapping[Task, Outcome]) -> Iterator[Finding]:
    """The packages that cannot be imported, or are others than they say."""
    good, untried = [], []
    wanted = asked()
    for package in TESTED:
        outcome = outcomes[_import(package)]
        if outcome.failure is None:
            fault = _other_version(package, outcome.value)
            good += [package] if fault is None else []
            yield from [] if fault is None else [fault]
        elif not outcome.is_tried:
            untried.append(package)
        elif installed_version(package) is not None:  # that it is missing is told among the versions
            mend = f"pip install --force-reinstall '{package}{wanted.get(package, '')}'"
            text = f"{package} {installed_version(package)} cannot be imported: {outcome.failure}{_origin(package)}"
            yield Finding("error", package, text, mend)
    if untried:
        yield Finding("warning", "imports", f"not tried, since what they stand on fails: {', '.join(untried)}")
    if len(good) == len(TESTED):
        yield Finding("ok", "imports", "all packages above can be imported")
    elif good:
        yield Finding("ok", "imports", f"can be imported: {', '.join(good)}")


def look_at_libsndfile(outcomes: Mapping[Task, Outcome]) -> Iterator[Finding]:
    """The library that fairseq2's native part loads, and where it was found."""
    outcome = outcomes[_SNDFILE]
    if outcome.failure is None:
        yield Finding("ok", "libsndfile", f"libsndfile: {outcome.value}")
        return
    text, _, mend = outcome.failure.removesuffix(DOCTOR).strip().partition(" Run: ")
    yield Finding("error", "libsndfile", text.rstrip("."), mend or f"{sys.executable} -m lexalcm.installation")


def look_at_extensions(outcomes: Mapping[Task, Outcome]) -> Iterator[Finding]:
    """What adds model families and cards to fairseq2. It passes over those that fail with a warning only."""
    for name, reason in installed_entries(EXTENSIONS)[1]:
        text = f"the entry points of {name} cannot be read, which ends fairseq2 whenever it starts: {reason}"
        yield Finding("error", "extensions", text, f"pip install --force-reinstall {name}")
    start = outcomes[_START]
    failures: dict[str, str] = {} if start.failure is not None else dict(start.value["failures"])
    good, untried = [], []
    for entry in _extensions():
        outcome = outcomes[_entry(entry)]
        reason = outcome.failure or failures.get(entry.value)
        if reason is not None and outcome.is_tried:
            text = (
                f"extension {entry.value} of {_described(entry)} fails, so that what it brings is not known: {reason}"
            )
            yield Finding("error", "extensions", text, _mend(entry, outcomes))
        elif start.failure is not None:
            untried.append(_described(entry))
        else:
            good.append(_described(entry))
    if start.failure is not None and start.is_tried and len(untried) == len(_extensions()):
        yield Finding("error", "extensions", f"fairseq2 cannot start: {start.failure}")
    elif untried:
        yield Finding("warning", "extensions", f"extensions not tried: {', '.join(untried)}")
    if good:
        text = f"fairseq2 starts with the extensions {', '.join(good)}, and {start.value['cards']} cards"
        yield Finding("ok", "extensions", text)


def devices(outcomes: Mapping[Task, Outcome]) -> Outcome:
    """What ``in_child.devices`` returned."""
    return outcomes[_DEVICES]


def _import(package: str) -> Task:
    module = _MODULES.get(package, package)
    return Task("lexalcm.doctor.in_child:import_package", module, needs=_BELOW.get(package))


def _entry(entry: EntryPoint) -> Task:
    return Task("lexalcm.doctor.in_child:load_entry", entry.value, needs="fairseq2")


def _mend(entry: EntryPoint, outcomes: Mapping[Task, Outcome]) -> str | None:
    if any(outcomes[_import(package)].failure is not None for package in TESTED):
        return "first what cannot be imported"
    return None if entry.dist is None else f"pip install --force-reinstall {entry.dist.name}"


def _extensions() -> list[EntryPoint]:
    # An editable install beside stale metadata lists the same entry twice.
    return list({entry.value: entry for entry in reversed(installed_entries(EXTENSIONS)[0])}.values())[::-1]


def _described(entry: EntryPoint) -> str:
    if entry.dist is None:
        return "an unknown distribution"
    return f"{entry.dist.name} {installed_version(entry.dist.name)}"


def _other_version(package: str, module: Mapping[str, str | None]) -> Finding | None:
    told, installed = module["version"], installed_version(package)
    if told is None or installed is None or told.partition("+")[0] == installed.partition("+")[0]:
        return None
    text = f"{package} {installed} is installed, but what is imported calls itself {told}: {module['file']}"
    return Finding("error", package, text, "remove that copy, or what puts it first (PYTHONPATH, the current folder)")


def _origin(package: str) -> str:
    """Where the package is imported from, if that is not where it was installed."""
    from importlib.util import find_spec

    spec = find_spec(_MODULES.get(package, package).partition(".")[0])
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is None or folder.is_relative_to(sys.prefix):
        return ""
    return f" (in {folder})"
