"""Lists and shows cards: models, normalizers, datasets, objectives, samplers and any kind that another package adds.

Cards come from packages and from the folders named in FAIRSEQ2_ASSET_DIR and FAIRSEQ2_USER_ASSET_DIR. `show` also takes
a card file, or the folder of a training run.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from lexalcm.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from lexalcm.recipes.catalog import Asset, Catalog

_ACTIONS = ("list", "show")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", nargs="?", default="list", help="list or show (default: list)")
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="the card to show: a name, a card file or a run's folder"
    )
    parser.add_argument("--kind", metavar="KIND", help="list this kind only, say model or sampler")
    parser.add_argument("--all", action="store_true", help="list the cards that have nothing to do with concepts too")


def run(args: Namespace) -> int:
    if args.action not in _ACTIONS:
        raise ConfigError(f"{unknown_name('action', args.action, _ACTIONS)}")
    if args.action == "show" and args.name is None:
        raise ConfigError("`show` needs the name of a card. `fairseq2 lcm assets list` shows the names.")
    if args.action == "list" and args.name is not None:
        raise ConfigError(f"`list` takes no name. To see one card: fairseq2 lcm assets show {args.name}")

    from lexalcm.installation import check_setup

    check_setup()
    from fairseq2.assets import get_asset_store
    from fairseq2.runtime.dependency import get_dependency_resolver

    from lexalcm.checkpoints.resolve import resolve_card
    from lexalcm.recipes.catalog import describe_card, read_catalog

    if args.action == "show":
        for number, (name, fields) in enumerate(describe_card(resolve_card(args.name))):
            print(name if number == 0 else f"builds on {name}")
            _print_fields(fields)
        return 0
    catalog = read_catalog(get_asset_store(), get_dependency_resolver())
    if args.kind is not None and args.kind not in catalog.kinds:
        raise ConfigError(f"`--kind`: {unknown_name('kind of card', args.kind, catalog.kinds)}")
    _print_catalog(catalog, kind=args.kind, everything=args.all)
    return 0


def _print_catalog(catalog: Catalog, *, kind: str | None, everything: bool) -> None:
    asked = [asset for asset in catalog.assets if kind in (None, asset.kind)]
    shown = [asset for asset in asked if everything or asset.for_concepts]
    for group in dict.fromkeys(asset.kind for asset in shown):
        print(group)
        rows = [(asset.name, _nature(asset), asset.source) for asset in shown if asset.kind == group]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        for name, nature, source in rows:
            print(f"  {name:<{widths[0]}}  {nature:<{widths[1]}}  {source}")
    hidden = len(asked) - len(shown)
    if hidden:
        print(f"{hidden} more that do not hold concepts: --all lists them")
    if everything:
        for name, reason in catalog.unreadable:
            sys.stderr.write(f"cannot be read: {name}: {reason}\n")
    elif catalog.unreadable:
        sys.stderr.write(f"{len(catalog.unreadable)} cannot be read: --all tells why\n")


def _nature(asset: Asset) -> str:
    return f"{asset.family}, {asset.arch}" if asset.arch else asset.family


def _print_fields(fields: dict[str, object], indent: str = "  ") -> None:
    for key, value in fields.items():
        if isinstance(value, dict) and value:
            print(f"{indent}{key}:")
            _print_fields(value, indent + "  ")
        else:
            print(f"{indent}{key}: {value}")
