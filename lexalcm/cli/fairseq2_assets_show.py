"""Shows the card of one asset in fairseq2's own store, its base cards included: what `python -m fairseq2.assets show`
prints."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the asset, as `fairseq2 assets list` shows it")


def run(args: Namespace) -> int:
    from lexalcm.cli.fairseq2_assets import pass_through

    return pass_through(["show", args.name])
