"""Writes a model's weights into a folder for others to read. Nothing that is there is replaced unless it is asked for.

safetensors: with a card by which everything here can use it; the folder can be moved. meta: model.pt and
model_card.yaml as Meta's trainer writes them, with the normalizer's file and card. huggingface: config.json and
model.safetensors in the layout in which LexaLCM-Pre1 was published.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

_DTYPES = ("float32", "float16", "bfloat16")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a card's name, a card file, or a folder: of a run, an export, a published model"
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="the folder to write; its name becomes the card's")
    parser.add_argument(
        "--format", default="safetensors", help="safetensors, meta or huggingface (default: safetensors)"
    )
    parser.add_argument(
        "--dtype", default="float32", help="of the parameters: float32, float16 or bfloat16 (default: float32)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same names")


def run(args: Namespace) -> int:
    from lexalcm.errors import ConfigError, unknown_name

    if args.dtype not in _DTYPES:
        raise ConfigError(f"`--dtype`: {unknown_name('type', args.dtype, _DTYPES)}")

    from lexalcm.installation import check_setup

    check_setup()
    import torch

    from lexalcm.checkpoints.export_model import check_format, export_model
    from lexalcm.checkpoints.load import load_described

    check_format(args.format)
    loaded = load_described(args.model)
    files = export_model(loaded, args.output, args.format, dtype=getattr(torch, args.dtype), overwrite=args.overwrite)
    num_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    print(
        f"{args.output}\n"
        f"  format      {args.format}\n"
        f"  model       {loaded.described.family.name}, {num_parameters:,} parameters, {args.dtype}\n"
        f"  files       {', '.join(files.writers)}"
    )
    for note in files.notes:
        print(f"Note: {note}")
    return 0
