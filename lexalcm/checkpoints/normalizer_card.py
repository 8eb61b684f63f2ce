"""The normalizer that a model's card names, where the card is a file that no asset store knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseq2.assets import AssetCard, AssetStore
from fairseq2.runtime.dependency import DependencyResolver

from lexalcm.checkpoints.card_file import card_beside, refuse_directives
from lexalcm.checkpoints.described import card_place, describe_model
from lexalcm.errors import CardError
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.lookup import with_normalizer_of_card


def with_normalizer(resolver: DependencyResolver, card: AssetCard, config: Any) -> Any:
    """Completes a configuration that names its normalizer.

    Cards beside the model's come first, then those of its run when it is the card of a step, then the asset store.

    :raises CardError: There is no such normalizer.
    """
    name = getattr(config, "sonar_normalizer_name", None)
    if name is None or config.normalizer is not None:
        return config
    for folder in _folders(card):
        beside = card_beside(folder, name)
        if beside is None:
            continue
        found = describe_model(beside, resolver).config
        if not isinstance(found, NormalizerConfig):
            raise CardError(f"{card_place(card)}: `sonar_normalizer_name`: {card_place(beside)} is not a normalizer's.")
        return replace(config, normalizer=found)
    registered = resolver.resolve(AssetStore).maybe_retrieve_card(name)
    if registered is not None:
        refuse_directives(registered)
    try:
        return with_normalizer_of_card(resolver, config)
    except CardError as ex:
        raise CardError(f"{card_place(card)}: {ex}") from ex


def _folders(card: AssetCard) -> list[Path]:
    folder = card.metadata.get("__base_path__")
    if not isinstance(folder, Path):
        return []
    return [folder, folder.parent.parent] if folder.name.startswith("step_") else [folder]
