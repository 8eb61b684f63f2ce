"""Objectives and samplers: components described by cards of kinds fairseq2 does not know, in its own store.

A card names its family in ``objective_family`` or ``sampler_family`` and holds the fields in ``objective_config`` or
``sampler_config``. Recipes use the families here; cards of other packages' families can be listed and shown only.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, TypeVar

from fairseq2.assets import AssetStore
from fairseq2.runtime.dependency import DependencyResolver
from fairseq2.utils.structured import ValueConverter

from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.diffusion.objective import ObjectiveConfig
from lexalcm.diffusion.samplers import SamplerConfig
from lexalcm.errors import CardError
from lexalcm.recipes.check_fields import check_fields
from lexalcm.recipes.config import ComponentSection

T = TypeVar("T")

_KINDS: Final = {ObjectiveConfig: "objective", SamplerConfig: "sampler"}


def component_config(resolver: DependencyResolver, section: ComponentSection, kls: type[T], *, where: str) -> T:
    """Returns the configuration that a recipe's section means: its card's fields, with those written in it on top.

    :param kls: ``ObjectiveConfig`` or ``SamplerConfig``.
    :param where: The section's path, for messages.
    :raises CardError: The card is of another kind or family.
    :raises ConfigError: A field is misspelt or of another type.
    """
    kind = _KINDS[kls]
    family = f"lcm_{kind}"
    data: dict[str, Any] = {}
    if section.name is not None:
        card = resolve_card(section.name, store=resolver.resolve(AssetStore))
        field = card.maybe_get_field(f"{kind}_family")
        if field is None or field.value != family:
            found = "no such field" if field is None else repr(field.value)
            raise CardError(
                f"`{where}.name`: card {section.name} must have `{kind}_family: {family}`, but has {found}."
            )
        config_field = card.maybe_get_field(f"{kind}_config")
        if config_field is not None:
            check_fields(config_field.value, kls, f"{kind}_config of card {section.name}")
            data = dict(config_field.value)  # type: ignore[call-overload]
    check_fields(section.config, kls, f"{where}.config")
    for key, value in section.config.items():
        inner = data.get(key)
        data[key] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    assert set(data) <= {f.name for f in fields(kls)}  # type: ignore[arg-type]
    return resolver.resolve(ValueConverter).structure(data, kls)  # type: ignore[return-value]
