"""What a run that was killed has left behind: made good before the next one looks at the folder.

fairseq2 writes a checkpoint aside and renames it when it is whole; what can still be half-written is a checkpoint of a
machine that lost power, and small files that are written in place.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from fairseq2.logging import log

from lexalcm.checkpoints.damage import what_is_damaged, what_is_missing
from lexalcm.checkpoints.resolve import read_score, saved_steps
from lexalcm.errors import CheckpointError

DAMAGED: Final = "damaged"
"""What is added to the name of a checkpoint's folder that cannot be resumed from."""


def recover(output_dir: Path, checkpoints: Path) -> None:
    """Removes what is half-written, and sets aside checkpoints that are damaged, the newest first, up to one that is
    not. To be called by one process while no other uses the folder.

    :raises CheckpointError: There are checkpoints, but no good one.
    """
    for folder in checkpoints.glob("step_*.tmp"):
        log.info("Removing {}, which was being written when the run before ended.", folder)
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    _remove_torn_scores(checkpoints)
    for file in (output_dir / "metrics").rglob("*.jsonl"):
        _cut_torn_line(file)
    _set_damaged_aside(checkpoints)


def _set_damaged_aside(checkpoints: Path) -> None:
    steps = [step for step in saved_steps(checkpoints) if (checkpoints / f"step_{step}" / "trainer").exists()]
    damaged: list[tuple[Path, str]] = []
    while steps:
        folder = checkpoints / f"step_{steps[-1]}"
        reason = what_is_damaged(folder)
        if reason is None:
            break
        damaged.append((folder, reason))
        steps.pop()
    if damaged and not steps:
        folder, reason = damaged[0]
        raise CheckpointError(
            f"{folder} is damaged: {reason}. There is no earlier checkpoint to go on from.\n"
            f"Restore it from a copy, or move {checkpoints} away to begin anew."
        )
    for step in steps[:-1]:
        _set_half_deleted_aside(checkpoints, step)
    for folder, reason in damaged:
        aside = _free_name(folder)
        folder.rename(aside)
        log.warning(
            "{} is damaged: {}. It is now {}; the run goes on from step {:,}.", folder, reason, aside.name, steps[-1]
        )


def _set_half_deleted_aside(checkpoints: Path, step: int) -> None:
    """A checkpoint is deleted file by file, and its score last: what is left of one must not become the run's model."""
    folder = checkpoints / f"step_{step}"
    reason = what_is_missing(folder)
    if reason is None:
        return
    aside = _free_name(folder)
    folder.rename(aside)
    (checkpoints / "scores" / f"{folder.name}.txt").unlink(missing_ok=True)
    log.info("{} is not whole ({}): its deletion was broken off. It is now {}.", folder, reason, aside.name)


def _free_name(folder: Path) -> Path:
    names = (f"{folder.name}.{DAMAGED}{number or ''}" for number in range(1_000_000))
    return next(path for name in names if not (path := folder.with_name(name)).exists())


def _remove_torn_scores(checkpoints: Path) -> None:
    for file in (checkpoints / "scores").glob("step_*.txt"):
        try:
            read_score(file)
        except CheckpointError:
            log.warning("Removing {}, which holds no number: the score of that step is lost.", file)
            file.unlink()


def _cut_torn_line(file: Path) -> None:
    with file.open("r+b") as stream:
        text = stream.read()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            log.info("Cutting off the last line of {}, which was being written when the run before ended.", file)
            stream.truncate(whole)
