"""From an exception to what a user reads and the exit code: 2 for the user's fault, 1 for a run that failed."""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Final

from lexalcm.errors import LexalcmError, RunError, SetupError, causes
from lexalcm.installation import DOCTOR
from lexalcm.shown import printable, without_passwords

_USER_FAULTS = frozenset(
    (
        "AssetCardError",
        "AssetCardNotValidError",
        "AssetDownloadError",
        "AssetMetadataError",
        "AssetNotFoundError",
        "AssetSourceNotFoundError",
        "CheckpointNotFoundError",
        "ConfigDirectiveError",
        "CorruptModelCheckpointError",
        "DatasetError",
        "DatasetTypeNotValidError",
        "DeviceTypeNotSupportedError",
        "EnvironmentVariableError",
        "FSDPNotSupportedError",
        "GangTopologyError",
        "HSDPTopologyError",
        "LayerwiseACNotSupportedError",
        "LocalRankOutOfRangeError",
        "ManualGradScalingNotSupportedError",
        "MetricNotKnownError",
        "ModelCheckpointNotFoundError",
        "ModelGatedError",
        "ModelTypeNotValidError",
        "RecipeConfigParseError",
        "RecipeError",
        "StructureError",
        "TorchCompileNotSupportedError",
        "ValidationError",
        "WandbInitializationError",
        "YamlError",
    )
)
_RUN_FAILURES = frozenset(
    (
        "CheckpointError",
        "DataReadError",
        "GangError",
        "MinimumLossScaleReachedError",
        "OperationalError",
    )
)

_FIXES = {
    "GangError": "Most likely another rank has ended: its own message says why. The same command goes on from the last "
    "checkpoint.",
    "LocalRankOutOfRangeError": "Start at most one process a device (torchrun --nproc-per-node), or compute on the CPU with "
    "FAIRSEQ2_DEVICE=cpu.",
}

_LIBRARY_FAULTS: Final = re.compile(
    r"shared object|undefined symbol|ELF header|dlopen|image not found|library not loaded|fairseq2 requires|"
    r"version `\S+' not found",
    re.IGNORECASE,
)
"""What loaders of shared libraries, and fairseq2n's own, write."""


def report(error: BaseException, *, debug: bool) -> int:
    """Prints ``error`` to standard error and returns the exit code.

    What the user can mend is printed without a traceback; our own mistakes keep theirs, since they are to be reported.
    """
    text, code = describe(error)
    if debug or text is None:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        sys.stderr.write(without_passwords(trace))
    if text is None:
        text = "This is a mistake in the program, not in what you typed; please report it with the lines above."
    for line in text.splitlines():
        sys.stderr.write(f"{_prefix()}{printable(line)}\n")
    return code


def describe(error: BaseException) -> tuple[str | None, int]:
    """Returns the text for a user (``None`` for an unforeseen error) and the exit code."""
    if isinstance(error, SetupError):
        return f"error: {error}" if DOCTOR in str(error) else f"error: {error}\n{DOCTOR}", 2
    if isinstance(error, LexalcmError):
        return f"error: {error}", 1 if isinstance(error, RunError) else 2
    name = _host_name(error)
    if name in _USER_FAULTS or name.endswith("NotKnownError"):
        fix = f"\n{_FIXES[name]}" if name in _FIXES else ""
        return f"error: {_with_causes(error)}{fix}", 2
    if name == "ExtensionError":
        return f"error: {_with_causes(error)}\n{DOCTOR}", 1
    if name in _RUN_FAILURES:
        fixes = (_FIXES[cause] for cause in map(_host_name, causes(error)) if cause in _FIXES)
        return f"error: {_with_causes(error)}" + "".join(f"\n{fix}" for fix in fixes), 1
    if type(error).__name__ == "OutOfMemoryError":
        return f"error: out of device memory: {_first_line(error)}\nA smaller batch needs less memory.", 1
    if _is_broken_setup(error):
        return f"error: {type(error).__name__}: {_first_line(error)}\n{DOCTOR}", 2
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        return f"error:{where}: {error.strerror}", 1
    return None, 1


def _is_broken_setup(error: BaseException) -> bool:
    """Whether a package or shared library of others could not be loaded; a name of our own that is missing is our fault."""
    if isinstance(error, ImportError):
        return (error.name or "").partition(".")[0] != "lexalcm"
    return isinstance(error, (OSError, RuntimeError)) and _LIBRARY_FAULTS.search(str(error)) is not None


def _host_name(error: BaseException) -> str:
    """Returns the name of fairseq2's exception class that ``error`` is, or an empty string.

    By name, because importing the classes costs seconds.
    """
    for cls in type(error).__mro__:
        if cls.__module__.partition(".")[0] == "fairseq2":
            return cls.__name__
    return ""


def _with_causes(error: BaseException) -> str:
    """Returns at most three lines: the error, and what lies at its bottom."""
    *_, root = causes(error)
    lines = [_first_line(error)]
    if root is not error:
        lines.append(f"cause: {_first_line(root)}")
    return "\n".join(lines)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _prefix() -> str:
    rank = os.environ.get("RANK", "0")
    return f"[rank {rank}] " if rank != "0" else ""
