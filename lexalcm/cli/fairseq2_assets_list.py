"""Lists the assets in fairseq2's own store, by the place they come from: what `python -m fairseq2.assets list`
prints."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

_KINDS = ("all", "model", "dataset", "tokenizer")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--kind", choices=_KINDS, default="all", help="kind of assets to list (default: all)")


def run(args: Namespace) -> int:
    from lexalcm.cli.fairseq2_assets import pass_through

    return pass_through(["list", "--kind", args.kind])
