"""What a child of ``children.py`` does. It may import anything, crash or hang."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from lexalcm.doctor.finding import first_line
from lexalcm.errors import LexalcmError, causes


def main(writing: int, tasks: Sequence[tuple[str, str, str | None]]) -> None:
    """Does the tasks in order and writes a line of JSON for each one done: its number, value, failure, was it tried.

    :param writing: The file descriptor to write to.
    :param tasks: A function as ``module:name``, its argument, and the argument of the task that it needs.
    """
    failed: set[str] = set()
    for number, (function, argument, needs) in enumerate(tasks):
        value, failure, is_tried = None, None, needs not in failed
        if is_tried:
            try:
                module, _, name = function.partition(":")
                value = getattr(import_module(module), name)(argument)
            # Code of other packages may fail in any way, and may even try to end the process.
            except (Exception, SystemExit) as ex:
                failure = _reason(ex)
        else:
            failure = f"needs {needs}"
        if failure is not None:
            failed.add(argument)
        os.write(writing, json.dumps([number, value, failure, is_tried]).encode() + b"\n")
    # Threads and exit handlers of what was imported are of no interest any more.
    os._exit(0)


def import_package(module: str) -> dict[str, str | None]:
    """Where the module comes from, and the version that it calls itself."""
    found = import_module(module)
    top = sys.modules[module.partition(".")[0]]
    release = getattr(top, "__version__", None)
    return {"file": getattr(found, "__file__", None), "version": None if release is None else str(release)}


def load_entry(value: str) -> None:
    """Imports what an entry point names."""
    EntryPoint("entry", value, "").load()


def start_fairseq2(_: str) -> dict[str, Any]:
    """Starts fairseq2 as every command does: the extensions that fail, each with the reason, and the number of cards."""
    from fairseq2 import init_fairseq2
    from fairseq2.assets import AssetStore

    # With this variable, the first extension that fails would hide the others.
    os.environ.pop("FAIRSEQ2_EXTENSION_TRACE", None)
    failures = _Failures()
    logging.getLogger("fairseq2").addHandler(failures)
    store = init_fairseq2().resolve(AssetStore)
    return {"failures": failures.reasons, "cards": len(store.asset_names)}


class _Failures(logging.Handler):
    """fairseq2 says in its log that an extension failed, but not why; while it does, the exception is being handled."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        value = record.getMessage().split(" ")[0]
        if error is not None and ":" in value:
            self.reasons[value] = _reason(error)


def libsndfile(_: str) -> str:
    """Where the library lies that fairseq2n would load."""
    from lexalcm.installation import find_libsndfile

    found = find_libsndfile()
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.is_file() else []
    paths = [line.split(maxsplit=5)[-1] for line in lines if "libsndfile" in line]
    return paths[0] if paths else found


def devices(_: str) -> dict[str, Any]:
    """What torch says of the GPUs, each of which computes something."""
    import torch

    present = {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "archs": torch.cuda.get_arch_list(),
        "mps": torch.backends.mps.is_available(),
        "problem": None,
        "gpus": [],
    }
    if (torch.version.cuda or torch.version.hip) and not torch.cuda.is_available():
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as ex:
            present["problem"] = _reason(ex)
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(i)
        gpu = {
            "name": properties.name,
            "capability": [properties.major, properties.minor],
            "total": properties.total_memory,
            "free": None,
            "problem": None,
        }
        try:
            gpu["free"] = torch.cuda.mem_get_info(i)[0]
            total = torch.ones(256, device=f"cuda:{i}").sum().item()
            gpu["problem"] = None if total == 256 else f"it adds 256 ones up to {total}"
        except RuntimeError as ex:
            gpu["problem"] = _reason(ex)
        present["gpus"].append(gpu)
    return present


def _reason(error: BaseException) -> str:
    if isinstance(error, LexalcmError):
        return " ".join(str(error).splitlines())
    *_, root = causes(error)
    kind = "" if isinstance(root, ImportError) else f"{type(root).__name__}: "
    return f"{kind}{first_line(root)}"
