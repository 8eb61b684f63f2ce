"""Room on the disks, and the caches that downloads go to."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from lexalcm.doctor.finding import Finding
from lexalcm.doctor.machine import GIB

_LITTLE_ROOM: Final = 10 * GIB
"""Two checkpoints of the 394,900,736-parameter model, of 4.7 GiB each with the optimizer's state."""

_TOO_LITTLE_ROOM: Final = GIB // 2
_SECONDS_COUNTING: Final = 0.5
"""For each cache: one on a network file system may hold millions of files."""


def caches(environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Where fairseq2, Hugging Face and torch keep what they download, by the variable that says so."""
    home = Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    hub = environment.get("HF_HUB_CACHE")
    return {
        "FAIRSEQ2_CACHE_DIR": Path(environment.get("FAIRSEQ2_CACHE_DIR") or home / "fairseq2" / "assets").expanduser(),
        "HF_HUB_CACHE" if hub else "HF_HOME": Path(
            hub or environment.get("HF_HOME") or home / "huggingface"
        ).expanduser(),
        "TORCH_HOME": Path(environment.get("TORCH_HOME") or home / "torch").expanduser(),
    }


def look_at_disks() -> Iterator[Finding]:
    """One line for each file system that something will be written to."""
    places: dict[str, Path] = {}
    try:
        places["the current folder"] = Path.cwd()
    except FileNotFoundError:
        yield Finding("error", "disk", "the current folder has been removed", "cd to a folder that is there")
    try:
        places["temporary files"] = Path(tempfile.gettempdir())
    except FileNotFoundError:
        text = f"no folder for temporary files can be written to (TMPDIR is {os.environ.get('TMPDIR', 'not set')})"
        yield Finding("error", "disk", text, "export TMPDIR=FOLDER, one with room that you may write to")
    given = os.environ.get("TMPDIR")
    if given and "temporary files" in places and not os.access(given, os.W_OK | os.X_OK):
        text = f"TMPDIR={given} cannot be written to; {places['temporary files']} is used instead"
        yield Finding("warning", "disk", text, "export TMPDIR=FOLDER, one with room that you may write to")
    here = places.get("the current folder")
    if here is not None and (here / "runs").is_dir():
        places["runs/"] = here / "runs"
    places |= caches()
    devices: dict[int, dict[str, Path]] = {}
    for name, path in places.items():
        nearest = _nearest(path)
        devices.setdefault(nearest.stat().st_dev, {})[name] = nearest
        if name in ("the current folder", "runs/") and not os.access(nearest, os.W_OK | os.X_OK):
            mend = "cd to another folder, or name one: fairseq2 lcm train RECIPE OUTPUT_DIR"
            yield Finding("warning", "disk", f"{name}, {path}, cannot be written to", mend)
    for names in devices.values():
        yield _room(names)


def look_at_caches() -> Iterator[Finding]:
    """One line for all caches that can be used, and one for each that can not."""
    good = []
    for name, path in caches().items():
        nearest = _nearest(path)
        if path.exists() and not path.is_dir():
            yield Finding("error", "caches", f"{name}: {path} is a file", f"export {name}=FOLDER, or remove that file")
        elif not os.access(nearest, os.W_OK | os.X_OK):
            what = "cannot be written to: what is there is used, nothing new can be downloaded"
            text = what if path.exists() else f"is not there and cannot be made in {nearest}"
            yield Finding(
                "warning", "caches", f"{name}: {path} {text}", f"export {name}=FOLDER, one that you may write to"
            )
        else:
            good.append(f"{name} {path} ({_size(path)})")
    if good:
        yield Finding("ok", "caches", f"caches: {', '.join(good)}")


def _room(places: Mapping[str, Path]) -> Finding:
    """What is left on the file system of all these places."""
    place = next(iter(places.values()))
    usage, inodes = shutil.disk_usage(place), os.statvfs(place)
    text = f"{usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f} GiB for {', '.join(places)}"
    mend = f"free some room there (df -h {place}), or work in another folder"
    # Some file systems do not count files, and say 0 of 0.
    if inodes.f_files and not inodes.f_favail:
        return Finding("error", "disk", f"{text}, but no more files can be made (df -i {place})", mend)
    if usage.free < _TOO_LITTLE_ROOM:
        return Finding("error", "disk", text, mend)
    return Finding("warning", "disk", text, mend) if usage.free < _LITTLE_ROOM else Finding("ok", "disk", text)


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _size(folder: Path) -> str:
    if not folder.is_dir():
        return "empty"
    total, deadline = 0, time.monotonic() + _SECONDS_COUNTING
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                status = os.lstat(os.path.join(root, file))
            except OSError:
                continue  # removed meanwhile
            # Hugging Face's cache links to each of its files.
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if time.monotonic() > deadline:
            return f"over {total / GIB:.1f} GiB"
    return f"{total / GIB:.1f} GiB"
