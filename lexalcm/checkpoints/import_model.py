"""Writes cards for a model that lies somewhere, so that it can be used by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml
from fairseq2.assets import AssetCard, AssetStore
from fairseq2.runtime.dependency import DependencyResolver, get_dependency_resolver

from lexalcm.checkpoints.card_file import cards_in_file
from lexalcm.checkpoints.described import card_place, describe_model, plain_config
from lexalcm.checkpoints.export import card_name
from lexalcm.checkpoints.locate import WEIGHT_SUFFIXES, locate_weights
from lexalcm.checkpoints.normalizer_card import with_normalizer
from lexalcm.checkpoints.resolve import META_CARD_FILE, FoundModel, find_in_folder
from lexalcm.checkpoints.special_concepts import SPECIAL_FIELD, locate_special_concepts, special_field_of
from lexalcm.checkpoints.weights import check_weights
from lexalcm.errors import CardError, ConfigError
from lexalcm.models.pre1.original_hub import ORIGINAL_FAMILY

_DIM_FIELDS: Final = ("concept_dim", "sonar_embed_dim", "dim")
"""What configurations call the dimensions of a concept."""


@dataclass(frozen=True)
class ImportedModel:
    """One card that was written."""

    name: str

    family: str

    num_parameters: int

    concept_dim: int | None

    weights: Path


@dataclass(frozen=True)
class Import:
    what: str
    """What was recognised, in words."""

    models: list[ImportedModel]

    notes: tuple[str, ...]

    card_file: Path


def import_model(path: Path, *, name: str | None = None, card_file: Path | None = None) -> Import:
    """Recognises what a path holds, checks that it loads, and writes one file with its cards.

    :param path: A folder, a card file, or a file of weights with its card beside it.
    :param name: Of the first card; by default as the folder or card is called.
    :param card_file: By default ``<name>.yaml`` in the working directory. Never replaces a file.
    :raises CardError: There is no card for it, or the name is taken.
    :raises CheckpointError: It holds no model, or one that does not load.
    :raises ConfigError: The file exists, or the name cannot be one.
    """
    resolver = get_dependency_resolver()
    found = _recognise(path, resolver)
    name = name if name is not None else _usual_name(path, found)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", name) is None:
        raise ConfigError(f"`--name` must consist of letters, digits and _ . -, but is {name!r}.")
    card_file = card_file if card_file is not None else Path(f"{name}.yaml")
    if card_file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"`--output` must be a file that ends in .yaml, but is {card_file}.")
    if card_file.exists():
        raise ConfigError(f"{card_file} exists already. Give another file with --output, or another --name.")
    names = _names(name, found.cards)
    _refuse_taken(names, resolver)
    cards, models = [], []
    for card, new_name in zip(found.cards, names):
        fields, model = _complete(card, new_name, resolver)
        cards.append(fields)
        models.append(model)
    card_file.parent.mkdir(parents=True, exist_ok=True)
    with card_file.open("x", encoding="utf-8") as file:
        yaml.safe_dump_all(cards, file, sort_keys=False)
    return Import(found.what, models, found.notes, card_file)


def _recognise(path: Path, resolver: DependencyResolver) -> FoundModel:
    if path.is_dir():
        return find_in_folder(path)
    if not path.is_file():
        raise CardError(f"`{path}` does not exist (looked at {path.resolve()}).")
    if path.suffix not in WEIGHT_SUFFIXES:
        return FoundModel("a card", cards_in_file(path))
    found = find_in_folder(path.resolve().parent)
    cards = [card for card in found.cards if locate_weights(card, resolver).resolve() == path.resolve()]
    if not cards:
        raise CardError(f"{path} is not what a card beside it names as its `checkpoint`. Give the folder or the card.")
    return replace(found, cards=cards)


def _usual_name(path: Path, found: FoundModel) -> str:
    # All of Meta's trainer have one name.
    if path.suffix in (".yaml", ".yml") and path.name != META_CARD_FILE:
        return found.cards[0].name
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    if folder.name.startswith("step_") and folder.parent.name == "checkpoints":
        return f"{card_name(folder.parent.parent)}_{folder.name}"
    return card_name(folder)


def _names(name: str, cards: list[AssetCard]) -> list[str]:
    """A name for each card: the first gets ``name``, the others what they add to the first, say ``_raw``."""
    base = cards[0].name
    if cards[0].metadata.get("model_family") == ORIGINAL_FAMILY:
        base = base.removesuffix("_original")
    return [name + (c.name.removeprefix(base) if c.name.startswith(base) else f"_{c.name}") for c in cards]


def _refuse_taken(names: list[str], resolver: DependencyResolver) -> None:
    store = resolver.resolve(AssetStore)
    for name in names:
        card = store.maybe_retrieve_card(name)
        if card is not None:
            raise CardError(
                f"{card_place(card)} has the name already, and of two cards of one name only the first counts.\n"
                f"Give another with --name."
            )


def _complete(card: AssetCard, name: str, resolver: DependencyResolver) -> tuple[dict[str, Any], ImportedModel]:
    """The fields of a card that needs no other one, once it is known that the model loads."""
    described = describe_model(card, resolver)
    weights = locate_weights(card, resolver)
    described = replace(described, config=with_normalizer(resolver, card, described.config))
    model = check_weights(described, weights)
    fields: dict[str, Any] = {
        "name": name,
        "model_family": described.family.name,
        "model_config": plain_config(described.config, resolver),
        # Absolute: the card will be moved into an asset folder, the weights will not.
        "checkpoint": str(weights.resolve()),
    }
    steps = card.maybe_get_field("trained_steps")
    if steps is not None:
        fields["trained_steps"] = steps.value
    special = locate_special_concepts(card)
    if special is not None:
        fields[SPECIAL_FIELD] = special_field_of(card, str(special.resolve()))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    dims = (getattr(described.config, field, None) for field in _DIM_FIELDS)
    concept_dim = next((dim for dim in dims if dim is not None), None)
    return fields, ImportedModel(name, described.family.name, num_parameters, concept_dim, weights)
