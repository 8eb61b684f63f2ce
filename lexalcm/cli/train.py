"""Trains a two-tower model by a recipe: fairseq2's trainer, checkpoints and metrics on parquet files of embeddings.

Running the same command again in the same folder resumes. Ctrl-C, SIGTERM and SIGUSR1 end a run behind the step under
way, with a checkpoint and exit code 130 or 143; the second one ends it at once. Under several processes:
torchrun --nproc-per-node 2 -m lexalcm.cli lcm train RECIPE OUTPUT_DIR ...
"""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

_STOPPED: Final = 143
"""What a run that SIGUSR1 or SIGTERM has stopped exits with; see lexalcm.recipes.stopping."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's file, or the name of a shipped one, say pre1")
    parser.add_argument(
        "output_dir", metavar="OUTPUT_DIR", nargs="?", type=Path, help="the run's folder (default: runs/<recipe name>)"
    )
    parser.add_argument(
        "--config",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="fields of the recipe to change, say dataset.path=/data/wiki regime.num_steps=1000",
    )
    parser.add_argument("--dump-config", action="store_true", help="print the whole configuration as YAML and stop")
    parser.add_argument("--no-rich", action="store_true", help="plain log lines, no progress bars")
    parser.add_argument(
        "--checkpoint-dir", metavar="DIR", type=Path, help="where checkpoints go (default: in the run's folder)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, step on two real batches, validate on one, print what was found, write nothing",
    )


def run(args: Namespace) -> int:
    # Slurm's warning may come before there is anything to save, and would end the process as a failure.
    before = signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(_STOPPED))
    try:
        return _run(args)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.recipes.run import run_training

    return run_training(
        args.recipe,
        args.output_dir,
        overrides=args.config,
        dump_config=args.dump_config,
        no_rich=args.no_rich,
        checkpoint_dir=args.checkpoint_dir,
        dry_run=args.dry_run,
    )
