"""Whether the disk has room for a run's checkpoints, before hours of training are staked on it."""

from __future__ import annotations

import errno
import re
import shutil
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from fairseq2.logging import log
from fairseq2.recipe.config import RegimeSection
from torch.nn import Module

from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.errors import ConfigError, RunError, causes
from lexalcm.memory import format_bytes

_REMEDIES: Final = {
    errno.ENOSPC: "Make room",
    errno.EDQUOT: "Make room, or ask for a larger quota",
    errno.EFBIG: "Raise the limit on the size of files (`ulimit -f`), or take another file system",
    errno.EROFS: "Make it writable again",
}

_AVERAGES_OF_ADAM: Final = 2
_SMALL_BYTES: Final = 1 << 20
"""Trainer and reader states, and what files need around tensors."""


def checkpoint_bytes(model: Module, *, with_ema: bool) -> int:
    """About what one checkpoint takes: the weights, AdamW's two averages of each that is trained, and the EMA."""
    state = sum(x.numel() * x.element_size() for x in chain(model.parameters(), model.buffers()))
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return state + (_AVERAGES_OF_ADAM + with_ema) * trained + _SMALL_BYTES


def refuse_remote(folder: Path) -> None:
    """:raises ConfigError: It is a URL, of which a path has one slash left."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):
        raise ConfigError(
            f"{folder} is a URL, but a run's folder and its checkpoints must lie in a folder of this machine, or in one that "
            f"all its machines share."
        )


def check_folder(folder: Path) -> None:
    """Makes a run's folder, where it is not there yet.

    :raises ConfigError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as ex:
        raise ConfigError(
            f"The folder {folder} of the run cannot be written: {ex.strerror}.\nName one that can be: OUTPUT_DIR, or "
            f"--checkpoint-dir DIR for checkpoints alone."
        ) from ex


def check_disk_space(checkpoints: Path, num_bytes: int, regime: RegimeSection) -> None:
    """
    :param num_bytes: Of one checkpoint.
    :raises RunError: There is no room for one more; names both numbers.
    """
    folder = next(path for path in (checkpoints.resolve(), *checkpoints.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise RunError(
            f"A checkpoint of this run needs about {format_bytes(num_bytes)}, but only {format_bytes(free)} are free in "
            f"{folder}.\nMake room, or name another place: --checkpoint-dir DIR"
        )
    still = _checkpoints_to_come(checkpoints, regime)
    if free < still * num_bytes:
        log.warning(
            "The run will keep up to {} more checkpoint(s) of about {}, but only {} are free in {}: make room, or lower "
            "`regime.keep_last_n_checkpoints`.",
            still,
            format_bytes(num_bytes),
            format_bytes(free),
            folder,
        )


def tell_of_full_disk(error: BaseException, checkpoints: Path, *, step: int | None = None) -> None:
    """Returns if that is not what lies at the bottom of an error.

    :param step: The run's, where it has begun.
    :raises RunError: A file could not be written; names it and the last good checkpoint.
    """
    *_, root = causes(error)
    if not isinstance(root, OSError) or root.errno not in _REMEDIES:
        return
    saved = saved_steps(checkpoints)
    last = f"step {saved[-1]:,}" if saved else "none: the run has saved none yet"
    when = "" if step is None else f" (after step {step:,})"
    raise RunError(
        f"{root.filename or checkpoints} cannot be written: {root.strerror}{when}.\n"
        f"The last good checkpoint in {checkpoints}: {last}.\n"
        f"{_REMEDIES[root.errno]}, and run the same command again: it goes on from there."
    ) from error


def _checkpoints_to_come(checkpoints: Path, regime: RegimeSection) -> int:
    """How many more than now lie there at the fullest: old ones are deleted after a new one is written."""
    steps = saved_steps(checkpoints)
    every = regime.checkpoint_every_n_steps
    left = (regime.num_steps or 0) - (steps[-1] if steps else 0)
    to_save = 1 if every is None else -(-left // every)
    limits = [n for n in (regime.keep_last_n_checkpoints, regime.keep_best_n_checkpoints) if n is not None]
    if not limits or regime.keep_checkpoint_every_n_steps is not None:
        return to_save
    return max(min(to_save, sum(limits) + 1 - len(steps)), 1)
