"""Whether the checkpoint of a step is whole: no part missing, no file cut short or changed on the disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from zipfile import ZIP_STORED, BadZipFile, ZipFile

_THREADS: Final = 8

_PARTS: Final = ("trainer", "model", "optimizer", "data_reader")


def what_is_missing(step_folder: Path) -> str | None:
    """Looks at names and sizes alone.

    :returns: What a run cannot be resumed without, ``None`` if all is there.
    """
    files = {part: sorted((step_folder / part).rglob("*.pt")) for part in _PARTS}
    for part, found in files.items():
        if not found:
            return f"{part}/ holds nothing"
    for file in (file for found in files.values() for file in found):
        if file.stat().st_size == 0:
            return f"{file.relative_to(step_folder)} is empty"
    if len(files["trainer"]) < len(files["data_reader"]):
        return f"trainer/ has {len(files['trainer'])} file(s), data_reader/ {len(files['data_reader'])}"
    names = {part: [file.relative_to(step_folder / part) for file in files[part]] for part in ("model", "optimizer")}
    if names["model"] != names["optimizer"]:
        odd = min(set(names["model"]) ^ set(names["optimizer"]))
        return f"{odd} is in only one of model/ and optimizer/"
    return None


def what_is_damaged(step_folder: Path) -> str | None:
    """Reads every file and compares the sums that were written with it.

    :returns: What is missing or damaged first, ``None`` if all is as it was written.
    :raises OSError: A file cannot be read now, which says nothing of what is in it.
    """
    missing = what_is_missing(step_folder)
    if missing is not None:
        return missing
    files = [file for part in _PARTS for file in sorted((step_folder / part).rglob("*.pt"))]
    # Summing leaves the interpreter to other threads, and shards may be many and large.
    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = zip(files, pool.map(_damage_of_file, files))
        return next((f"{file.relative_to(step_folder)} {reason}" for file, reason in reasons if reason), None)


def _damage_of_file(file: Path) -> str | None:
    try:
        with ZipFile(file) as archive:
            # torch never compresses; who does may have a terabyte of zeros unfold here.
            if any(part.compress_type != ZIP_STORED for part in archive.infolist()):
                return "holds compressed parts, which no checkpoint does"
            bad = archive.testzip()
    except BadZipFile:
        return f"is cut short, or no checkpoint at all ({file.stat().st_size:,} bytes)"
    except (EOFError, NotImplementedError, ValueError) as ex:
        return f"cannot be read: {ex}"
    return None if bad is None else f"has changed since it was written (in {bad})"
