"""From the name of a normalizer's card to how it transforms concepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from fairseq2.assets import AssetCard, AssetStore
from fairseq2.models import ModelFamily
from fairseq2.runtime.dependency import DependencyResolver

from lexalcm.errors import CardError, unknown_name
from lexalcm.models.normalizer.config import NORMALIZER_FAMILY, NormalizerConfig

ConfigT = TypeVar("ConfigT", bound=Any)


def with_normalizer_of_card(resolver: DependencyResolver, config: ConfigT) -> ConfigT:
    """Completes a model's configuration whose ``normalizer`` is null, but which names a card.

    :raises CardError: ``sonar_normalizer_name`` names no normalizer's card.
    """
    if config.normalizer is not None or config.sonar_normalizer_name is None:
        return config
    return replace(config, normalizer=resolve_normalizer_config(resolver, config.sonar_normalizer_name))


def resolve_normalizer_config(resolver: DependencyResolver, name: str) -> NormalizerConfig:
    """Reads the card that a model's ``sonar_normalizer_name`` names.

    :raises CardError: There is no such card, or it is not a normalizer's.
    """
    store = resolver.resolve(AssetStore)
    card = store.maybe_retrieve_card(name)
    if card is None:
        known = {n.split("@")[0] for n in store.asset_names}
        normalizers = [n for n in known if _is_normalizer(store.maybe_retrieve_card(n))]
        raise CardError(
            f"The model's `sonar_normalizer_name`: {unknown_name('normalizer', name, normalizers)}\n"
            f"Put its card beside the model's, or in a folder of FAIRSEQ2_ASSET_DIR; or write into `model_config` how it "
            f"transforms: normalizer: {{dim: ...}}, which suits a plain one."
        )
    return normalizer_config_of(resolver, card)


def normalizer_config_of(resolver: DependencyResolver, card: AssetCard) -> NormalizerConfig:
    """:raises CardError: The card is another model's."""
    if not _is_normalizer(card):
        raise CardError(f"The model's `sonar_normalizer_name` names the card {card.name}, which is not a normalizer's.")
    config = resolver.resolve(ModelFamily, key=NORMALIZER_FAMILY).get_model_config(card)
    assert isinstance(config, NormalizerConfig)
    return config


def _is_normalizer(card: AssetCard | None) -> bool:
    if card is None:
        return False
    field = card.maybe_get_field("model_family")
    return field is not None and field.value == NORMALIZER_FAMILY
