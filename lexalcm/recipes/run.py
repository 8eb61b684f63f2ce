"""``fairseq2 lcm train``, from its arguments to the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import yaml
from fairseq2.error import OperationalError
from fairseq2.logging import log

from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.folder_lock import folder_lock
from lexalcm.recipes.check_run import check_train_config
from lexalcm.recipes.disk_space import check_folder, refuse_remote, tell_of_full_disk
from lexalcm.recipes.host import RecipeHost
from lexalcm.recipes.loading import find_recipe, load_train_config
from lexalcm.recipes.recovery import recover
from lexalcm.recipes.resume import is_finished, refuse_other_config
from lexalcm.recipes.stopping import StoppedBySignal
from lexalcm.recipes.train import LcmTrainRecipe

_LOCK_FILE: Final = ".lock"


def run_training(
    recipe: str,
    output_dir: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    dump_config: bool = False,
    no_rich: bool = False,
    checkpoint_dir: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Trains by a recipe and returns the exit code.

    :param recipe: A recipe's file, or the name of a shipped one.
    :param output_dir: The run's folder; by default ``runs/<recipe name>``. A run found there is resumed.
    :param overrides: ``key=value`` texts, applied in order.
    :raises LexalcmError: Something the user can mend.
    """
    file = find_recipe(recipe)
    host = RecipeHost(LcmTrainRecipe(dry_run=dry_run), no_rich=no_rich)
    config = load_train_config(host, file, overrides)
    if dump_config:
        yaml.safe_dump(host.unstructure(config), sys.stdout, sort_keys=False)
        return 0
    check_train_config(config)
    if dry_run:
        with TemporaryDirectory(prefix="lexalcm-dry-run-") as folder:
            host.run(config, Path(folder), record=False)
        return 0
    output_dir = output_dir if output_dir is not None else Path("runs") / file.stem
    checkpoints = checkpoint_dir if checkpoint_dir is not None else output_dir / "checkpoints"
    for folder in (output_dir, checkpoints):
        refuse_remote(folder)
    refuse_other_config(output_dir, checkpoints, host.unstructure(config))
    if is_finished(output_dir, checkpoints, config.regime.num_steps or 0):
        if _is_first_process():
            done = saved_steps(checkpoints)[-1]
            print(
                f"{output_dir} is finished: it has done {done:,} of {config.regime.num_steps:,} steps. Raise "
                f"regime.num_steps to go on."
            )
        return 0
    with ExitStack() as locks:
        if _is_first_process():
            for folder in (output_dir, checkpoints):
                check_folder(folder)
            locks.enter_context(folder_lock(checkpoints / _LOCK_FILE))
            # Before anything is written: what is half-written may be what fills the disk.
            recover(output_dir, checkpoints)
        try:
            host.run(config, output_dir, checkpoint_dir=checkpoint_dir)
        except OperationalError as ex:
            tell_of_full_disk(ex, checkpoints)
            raise
        except StoppedBySignal as stopped:
            log.info("Stopped in good order. The same command goes on from step {:,}.", stopped.step)
            return stopped.exit_code
    return 0


def _is_first_process() -> bool:
    # torchrun sets the first; what Slurm sets, fairseq2 turns into the first when the run begins.
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
