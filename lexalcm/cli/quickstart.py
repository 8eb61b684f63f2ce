"""Shows the whole thing at work in a few minutes on two CPU cores: makes the demo corpus, trains a small two-tower
model on it, and prints what was learned, with some continuations as text.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "output_dir",
        metavar="OUTPUT_DIR",
        nargs="?",
        type=Path,
        default=Path("runs/quickstart"),
        help="(default: runs/quickstart)",
    )
    parser.add_argument(
        "--config",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="fields of the recipe quickstart to change",
    )


def run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.recipes.quickstart import run_quickstart

    return run_quickstart(args.output_dir, overrides=args.config)
