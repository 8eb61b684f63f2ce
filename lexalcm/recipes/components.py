"""Objectives and samplers: components described by cards of kinds fairseq2 does not know, in its own store.

A card names its family in ``objective_family`` or ``sampler_family`` and holds the fields in ``objective_config`` or
``sampler_config``. Families are fairseq2 components (:mod:`lexalcm.training.families` says how to add one).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Generic, TypeVar

from fairseq2.assets import AssetStore
from fairseq2.recipe.component import ComponentManager
from fairseq2.runtime.dependency import DependencyResolver

from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.diffusion.objective import TrainingObjective
from lexalcm.diffusion.samplers import Sampler
from lexalcm.errors import CardError, ConfigError, unknown_name
from lexalcm.recipes.check_fields import check_fields
from lexalcm.recipes.config import ComponentSection
from lexalcm.recipes.host import component_config_kls, component_names
from lexalcm.training.families import LCM_OBJECTIVE, LCM_SAMPLER

T = TypeVar("T")


@dataclass(frozen=True)
class ComponentKind(Generic[T]):
    """What a component is."""

    name: str
    """As in the fields of a card."""

    kls: type[T]
    """As registered with fairseq2."""

    default_family: str


OBJECTIVES: Final = ComponentKind("objective", TrainingObjective, LCM_OBJECTIVE)  # type: ignore[type-abstract]

SAMPLERS: Final = ComponentKind("sampler", Sampler, LCM_SAMPLER)  # type: ignore[type-abstract]


@dataclass(frozen=True)
class ChosenComponent(Generic[T]):
    """A component that is checked, but not built."""

    kind: ComponentKind[T]

    family: str

    config: object
    """Of the family's configuration class."""

    resolver: DependencyResolver

    def create(self) -> T:
        """:raises ConfigError: The configuration cannot be honoured, or does not go with the model."""
        return self.resolver.resolve(ComponentManager).create_component(self.kind.kls, self.family, self.config)


def choose_component(
    resolver: DependencyResolver, section: ComponentSection, kind: ComponentKind[T], *, where: str
) -> ChosenComponent[T]:
    """Returns the component that a recipe's section means: its card's fields, with those written in it on top.

    :param where: The section's path, for messages.
    :raises CardError: The card is of another kind, or names a family that nobody registered.
    :raises ConfigError: A field is misspelt or of another type.
    """
    family = kind.default_family if section.family is None else section.family
    data: dict[str, Any] = {}
    if section.name is not None:
        family, data = _read_card(resolver, section.name, kind, where)
        if section.family not in (None, family):
            raise ConfigError(
                f"`{where}.family` is {section.family}, but the card {section.name} is of the family {family}.\n"
                f"Leave one of `{where}.family` and `{where}.name` out."
            )
    config_kls = component_config_kls(resolver, kind.kls, family)
    if config_kls is None:
        message = unknown_name(f"{kind.name} family", family, component_names(resolver, kind.kls))
        if section.name is not None:
            raise CardError(f"Card {section.name} of `{where}.name`: {message}")
        raise ConfigError(f"`{where}.family`: {message}")
    check_fields(data, config_kls, f"{kind.name}_config of card {section.name}")
    check_fields(section.config, config_kls, f"{where}.config")
    for key, value in section.config.items():
        inner = data.get(key)
        data[key] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    assert set(data) <= {f.name for f in fields(config_kls)}
    config = resolver.resolve(ComponentManager).structure_component_config(kind.kls, family, data)
    return ChosenComponent(kind, family, config, resolver)


def _read_card(
    resolver: DependencyResolver, name: str, kind: ComponentKind[T], where: str
) -> tuple[str, dict[str, Any]]:
    """Returns the family and the fields of a component's card."""
    card = resolve_card(name, store=resolver.resolve(AssetStore))
    family = card.maybe_get_field(f"{kind.name}_family")
    if family is None:
        raise CardError(f"`{where}.name`: card {name} describes no {kind.name}: it has no field `{kind.name}_family`.")
    config = card.maybe_get_field(f"{kind.name}_config")
    if config is None:
        return str(family.value), {}
    if not isinstance(config.value, dict):
        raise CardError(f"`{kind.name}_config` of card {name} must be a mapping, but is {config.value!r}.")
    return str(family.value), dict(config.value)
