"""Writes a fresh model, as training from scratch begins with it, into a folder: model.safetensors and a card.

Train it: fairseq2 lcm train pre1 RUN --config model.name=OUT dataset.path=DATA. The run keeps the normalizer that is
given here (--normalizer FILE, made by fairseq2 lcm fit-normalizer); without one it fits or takes what its recipe says.

On one machine, the same arguments give the same bytes. The weights are those that a recipe with common.seed=SEED starts
with on a CPU.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from lexalcm.cli.generate_options import parse_pairs
from lexalcm.errors import CardError, ConfigError, near_match, unknown_name

if TYPE_CHECKING:
    from fairseq2.assets import AssetCard

    from lexalcm.checkpoints.bootstrap import FreshModel
    from lexalcm.checkpoints.special_concepts import SpecialConceptsOfModel
    from lexalcm.models.normalizer.statistics import NormalizerStatistics

_DTYPES = ("float32", "bfloat16")
_ROLES = {"prefix": "start_of_text", "suffix": "end_of_text", "target_suffix": None}
"""What a model's card names, and which concept of ``fairseq2 lcm special-concepts`` that usually is."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="ARCH",
        help="an architecture or a model's card, say pre1_400m, or a recipe whose model it is: pre1",
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument("--name", metavar="NAME", help="of the card (default: what the folder is called)")
    parser.add_argument(
        "--config",
        metavar="FIELD=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="fields of the model's configuration to change, say concept_dim=384 schedule.kind=linear",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the weights (default: 0)")
    parser.add_argument("--dtype", default="float32", help="of the parameters: float32 or bfloat16 (default: float32)")
    parser.add_argument(
        "--normalizer",
        metavar="FILE",
        help="statistics to normalize with, or their card (default: those of the card that the model names, if any)",
    )
    parser.add_argument(
        "--special-concepts", metavar="FILE", help="special concepts to keep with the model, for generate to use"
    )
    parser.add_argument(
        "--prefix", metavar="NAME", help="the one before every document (default: start_of_text, if there is one)"
    )
    parser.add_argument(
        "--suffix",
        metavar="NAME",
        help="the one behind every document, or behind the sources of data with targets (default: end_of_text, if "
        "there is one and no --target-suffix)",
    )
    parser.add_argument("--target-suffix", metavar="NAME", help="the one behind the targets of data that has them")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there")


def run(args: Namespace) -> int:
    _check_words(args)
    overrides = parse_pairs(args.config, "--config")
    from lexalcm.installation import check_setup

    check_setup()
    import torch

    from lexalcm.checkpoints.bootstrap import check_free, plan_fresh_model, write_fresh_model
    from lexalcm.checkpoints.export import card_name
    from lexalcm.memory import format_bytes

    check_free(args.output, overwrite=args.overwrite)
    fresh = plan_fresh_model(_find_card(args.model), overrides)
    normalizer, statistics = _statistics(args.normalizer, fresh)
    special = _special(args, fresh.shell.concept_dim)
    dtype, name = getattr(torch, args.dtype), args.name or card_name(args.output)
    write_fresh_model(
        fresh, args.output, name=name, seed=args.seed, dtype=dtype, statistics=statistics, special=special
    )
    size = fresh.num_bytes(dtype)
    print(
        f"{args.output}: the card {name}\n"
        f"  model       {fresh.described.family.name}, {fresh.num_parameters:,} parameters, {args.dtype}, "
        f"concepts of {fresh.shell.concept_dim:,} dimensions\n"
        f"  size        {size:,} bytes ({format_bytes(size)})\n"
        f"  seed        {args.seed}\n"
        f"  normalizer  {normalizer or 'identity'}"
    )
    if special is not None:
        named = ", ".join(f"{role} {name}" for role in _ROLES if (name := getattr(special, role)) is not None)
        print(f"  special     {len(special.vectors)} concepts of {args.special_concepts}: {named or 'none in use'}")
    if normalizer is None:
        sys.stderr.write(
            "Its normalizer is the identity: a run that starts from it fits one, or takes the one that its recipe names.\n"
        )
    return 0


def _check_words(args: Namespace) -> None:
    if args.dtype not in _DTYPES:
        raise ConfigError(f"`--dtype`: {unknown_name('type', args.dtype, _DTYPES)}")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"`--seed` must be from 0 to {2**32 - 1}, but is {args.seed}.")
    if args.name is not None and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", args.name) is None:
        raise ConfigError(f"`--name` must consist of letters, digits and _ . -, but is {args.name!r}.")
    named = [role for role in _ROLES if getattr(args, role) is not None]
    if named and args.special_concepts is None:
        option = f"--{named[0].replace('_', '-')}"
        raise ConfigError(f"`{option}` names a concept of a file: give --special-concepts too.")


def _find_card(source: str) -> AssetCard:
    """Of a card, an architecture, or what a recipe trains."""
    from fairseq2.assets import get_asset_store

    from lexalcm.checkpoints.bootstrap import card_of_arch
    from lexalcm.checkpoints.resolve import resolve_card
    from lexalcm.shipped import shipped_folder

    store = get_asset_store()
    if Path(source).exists() or Path(source).suffix or "/" in source or store.maybe_retrieve_card(source) is not None:
        return resolve_card(source)
    card = card_of_arch(source)
    if card is not None:
        return card
    recipes = {file.stem: file for file in shipped_folder("recipes").glob("*.yaml")}
    if source in recipes:
        return _card_of_recipe(recipes[source])
    hint = near_match(source, [*recipes, *(name.split("@")[0] for name in store.asset_names)])
    raise CardError(
        f'"{source}" is not a known architecture, model card or recipe.{hint}\n'
        f"`fairseq2 lcm assets list --kind model` shows the cards. Recipes: {', '.join(sorted(recipes))}."
    )


def _card_of_recipe(file: Path) -> AssetCard:
    from fairseq2.assets import AssetCard

    from lexalcm.yaml_text import parse_yaml

    model = parse_yaml(file.read_text(encoding="utf-8"))[0]["model"]
    if model["family"] is None:
        raise ConfigError(f"The recipe {file.stem} goes on from a trained model, and names no architecture.")
    fields = {f"model_{field}": model.get(field) for field in ("family", "arch")}
    fields |= {"model_config": model.get("config_overrides"), "__source__": str(file)}
    return AssetCard(file.stem, {key: value for key, value in fields.items() if value is not None})


def _statistics(source: str | None, fresh: FreshModel) -> tuple[str | None, NormalizerStatistics | None]:
    """What to call them, and the statistics; of a card that the model names, where that has any."""
    from fairseq2.assets import get_asset_store

    from lexalcm.checkpoints.locate import has_weights
    from lexalcm.checkpoints.normalizer_file import SUFFIXES, read_normalizer_file
    from lexalcm.recipes.normalizer import check_statistics, statistics_of_card

    if source is None:
        name = fresh.shell.normalizer_name
        card = None if name is None else get_asset_store().maybe_retrieve_card(name)
        if card is None or not has_weights(card):
            return None, None
        source = name
    assert source is not None
    dim = fresh.shell.concept_dim
    if Path(source).suffix in SUFFIXES:
        statistics, _ = read_normalizer_file(source, dim)
    else:
        statistics = statistics_of_card(source, dim)
    check_statistics(statistics, fresh.shell.normalizer_config)
    return source, statistics


def _special(args: Namespace, concept_dim: int) -> SpecialConceptsOfModel | None:
    if args.special_concepts is None:
        return None
    import torch

    from lexalcm.checkpoints.special_concepts import SpecialConceptsOfModel
    from lexalcm.data.special_concepts import load_special_concepts

    found = load_special_concepts(args.special_concepts)
    roles: dict[str, str] = {}
    for role, usual in _ROLES.items():
        # In data with targets, what stands behind the sources is no end.
        if usual not in found.names or (role == "suffix" and args.target_suffix is not None):
            usual = None
        name = getattr(args, role) or usual
        if name is not None:
            found.get(name, concept_dim)
            roles[role] = name
    vectors = {name: torch.from_numpy(found.get(name, concept_dim)) for name in found.names}
    return SpecialConceptsOfModel(vectors, **roles, facts=found.facts)
