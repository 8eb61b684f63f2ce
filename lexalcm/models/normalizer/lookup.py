"""From the name of a normalizer's card to how it transforms concepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, TypeVar

from fairseq2.assets import AssetCard, AssetCardError, AssetStore
from fairseq2.models import ModelFamily
from fairseq2.runtime.dependency import DependencyResolver

from lexalcm.errors import CardError, unknown_name
from lexalcm.models.normalizer.config import NORMALIZER_FAMILY, NormalizerConfig

ConfigT = TypeVar("ConfigT", bound=Any)

PLACEHOLDER: Final = "dummy_sonar_normalizer"
"""What Meta's architectures name: a plain normalizer, of which their release ships an example. It is known without a
card: one here would clash with the user's of that name, which comes first."""


def with_normalizer_of_card(resolver: DependencyResolver, config: ConfigT) -> ConfigT:
    """Completes a model's configuration whose ``normalizer`` is null, but which names a card.

    :raises CardError: ``sonar_normalizer_name`` names no normalizer's card.
    """
    name = config.sonar_normalizer_name
    if config.normalizer is not None or name is None:
        return config
    store = resolver.resolve(AssetStore)
    card = store.maybe_retrieve_card(name)
    if card is not None:
        return replace(config, normalizer=_config_of(resolver, card))
    if name == PLACEHOLDER:
        return replace(config, normalizer=NormalizerConfig(dim=config.sonar_embed_dim))
    raise CardError(
        f"The model's `sonar_normalizer_name`: {unknown_name('normalizer', name, _normalizers(store))}\n"
        f"Put its card beside the model's, or in a folder of FAIRSEQ2_ASSET_DIR; or write into `model_config` how it "
        f"transforms: normalizer: {{dim: ...}}, which suits a plain one."
    )


def _config_of(resolver: DependencyResolver, card: AssetCard) -> NormalizerConfig:
    if not _is_normalizer(card):
        raise CardError(f"The model's `sonar_normalizer_name` names the card {card.name}, which is not a normalizer's.")
    config = resolver.resolve(ModelFamily, key=NORMALIZER_FAMILY).get_model_config(card)
    assert isinstance(config, NormalizerConfig)
    return config


def _normalizers(store: AssetStore) -> list[str]:
    found = []
    for name in sorted({n.split("@")[0] for n in store.asset_names}):
        try:
            card = store.maybe_retrieve_card(name)
        except AssetCardError:
            continue  # another card's fault
        if card is not None and _is_normalizer(card):
            found.append(name)
    return found


def _is_normalizer(card: AssetCard) -> bool:
    field = card.maybe_get_field("model_family")
    return field is not None and field.value == NORMALIZER_FAMILY
