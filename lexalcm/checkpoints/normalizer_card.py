"""The normalizer that a model's card names, where the card is a file that no asset store knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseq2.assets import AssetCard
from fairseq2.runtime.dependency import DependencyResolver

from lexalcm.checkpoints.resolve import cards_in_file
from lexalcm.errors import CardError
from lexalcm.models.normalizer.lookup import normalizer_config_of, resolve_normalizer_config


def with_normalizer(resolver: DependencyResolver, card: AssetCard, config: Any) -> Any:
    """Completes a configuration that names its normalizer: cards beside the model's come first, then the asset store.

    :raises CardError: There is no such normalizer.
    """
    name = getattr(config, "sonar_normalizer_name", None)
    if name is None or config.normalizer is not None:
        return config
    folder = card.metadata.get("__base_path__")
    beside = _card_beside(folder, name) if isinstance(folder, Path) else None
    if beside is not None:
        return replace(config, normalizer=normalizer_config_of(resolver, beside))
    return replace(config, normalizer=resolve_normalizer_config(resolver, name))


def _card_beside(folder: Path, name: str) -> AssetCard | None:
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            cards = cards_in_file(file)
        except CardError:
            continue  # any other file: this folder is not one of cards alone
        for card in cards:
            if card.name == name:
                return card
    return None
