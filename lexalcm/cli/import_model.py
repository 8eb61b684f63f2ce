"""Recognises a model in a folder and writes a card for it: a run or export of lexalcm, a run or step of Meta's
trainer, or LexaLCM-Pre1 as it was published.

That the weights fit is checked first; they stay where they are, and no file is ever replaced.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", type=Path, help="the folder, a card in it, or its file of weights")
    parser.add_argument("--name", metavar="NAME", help="of the card (default: what the folder is called)")
    parser.add_argument(
        "--output",
        metavar="CARD.yaml",
        type=Path,
        help="the file to write (default: NAME.yaml in the working directory)",
    )


def run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.checkpoints.import_model import import_model

    done = import_model(args.path, name=args.name, card_file=args.output)
    print(f"{args.path}: {done.what}")
    width = max(len(model.name) for model in done.models)
    for model in done.models:
        dims = "" if model.concept_dim is None else f", concepts of {model.concept_dim:,} dimensions"
        print(f"  {model.name:<{width}}  {model.family}, {model.num_parameters:,} parameters{dims}")
        print(f"  {'':<{width}}  {model.weights}")
    for note in done.notes:
        print(f"Note: {note}")
    print(
        f"Written: {done.card_file}. Use it by this path; or by name, once it lies in the folder that "
        f"FAIRSEQ2_ASSET_DIR names, or in ~/.config/fairseq2/assets."
    )
    return 0
