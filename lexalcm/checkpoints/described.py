"""What a model's card describes: a family, and a configuration of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fairseq2.assets import AssetCard, AssetCardError
from fairseq2.logging import log
from fairseq2.models import ModelFamily
from fairseq2.runtime.dependency import DependencyLookup, DependencyResolver
from fairseq2.utils.structured import StructureError, ValueConverter

from lexalcm.errors import CardError, ConfigError, innermost, near_match, unknown_name

_CONFIG_FIELDS: Final = ("model_config", "model_config_override", "model_config_overrides")
_DIRECTIVES: Final = ("_set_", "_del_")
"""What fairseq2 understands in the place of a field's name."""

_KINDS: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class DescribedModel:
    """A model that is not built yet."""

    card: AssetCard

    family: ModelFamily

    config: Any
    """Of the family's configuration class."""

    where: str
    """Who says so, for messages."""


def describe_model(card: AssetCard, resolver: DependencyResolver) -> DescribedModel:
    """Reads a model's card: its architecture, and over that its ``model_config``, those of its base cards first.

    :raises CardError: It is not a model's, or names a family, an architecture or a field that there is not.
    """
    where = card_place(card)
    families = DependencyLookup(resolver, ModelFamily)
    known = sorted(key for key in families.iter_keys() if isinstance(key, str))
    field = card.maybe_get_field("model_family")
    if field is None:
        hint = near_match("model_family", card.metadata)
        raise CardError(f"{where} describes no model: it has no `model_family`.{hint}\nFamilies: {', '.join(known)}.")
    name = str(field.value)
    family = families.maybe_get(name)
    if family is None:
        raise CardError(
            f"{where}: `model_family` is {name}, which is not known.{near_match(name, known)}\n"
            f"Families: {', '.join(known)}."
        )
    arch = card.maybe_get_field("model_arch")
    if arch is not None and arch.value not in family.get_archs():
        message = unknown_name(f"architecture of the family {family.name}", str(arch.value), family.get_archs())
        raise CardError(f"{where}: `model_arch`: {message}")
    return DescribedModel(card, family, _read_config(card, family, resolver, where), where)


def with_overrides(
    described: DescribedModel, overrides: Mapping[str, Any], resolver: DependencyResolver
) -> DescribedModel:
    """Changes fields against what the model was trained with, and warns of each.

    :param overrides: Values by the path of a field, such as ``schedule.kind``; checked as those of a card are.
    :raises ConfigError: There is no such field, or its value cannot be one.
    """
    given, old = _by_field(overrides), plain_config(described.config, resolver)
    where = f"{described.where}, overridden"
    try:
        _check_fields(given, old, "model_config", where)
        config = resolver.resolve(ValueConverter).structure(_merged(old, given), described.family.config_kls)
        new = plain_config(config, resolver)
        _check_numbers(given, new, old, "model_config", where)
    except StructureError as ex:
        raise ConfigError(f"{where}: {_trail(ex)}.") from ex
    except CardError as ex:
        raise ConfigError(str(ex)) from None
    changes = [f"`{path}` {was} -> {now}" for path, was, now in _changes(given, old, new)]
    if not changes:
        return described
    log.warning("{}: overriding what it was trained with: {}.", described.where, ", ".join(changes))
    return replace(described, config=config, where=f"{described.where} with {', '.join(overrides)} overridden")


def card_place(card: AssetCard) -> str:
    """The card's name and where it stands, for messages."""
    source = str(card.metadata.get("__source__", "")).removeprefix("path:")
    return f"Card {card.name}" + (f" ({source})" if source else "")


def plain_config(config: object, resolver: DependencyResolver) -> dict[str, Any]:
    """A configuration as what YAML can hold, every field of it."""
    return resolver.resolve(ValueConverter).unstructure(config)  # type: ignore[return-value]


def _read_config(card: AssetCard, family: ModelFamily, resolver: DependencyResolver, where: str) -> Any:
    arch = card.maybe_get_field("model_arch")
    default = family.config_kls() if arch is None else family.maybe_get_arch_config(str(arch.value))
    known = plain_config(default, resolver)
    given = _given_config(card, where)
    for field, value in given.items():
        _check_fields(value, known, field, where)
    try:
        config = family.get_model_config(card)
    except AssetCardError as ex:
        raise CardError(f"{where}: its configuration cannot be read: {_trail(ex)}.") from ex
    for field, value in given.items():
        _check_numbers(value, plain_config(config, resolver), known, field, where)
    return config


def _given_config(card: AssetCard, where: str) -> dict[str, Mapping[str, Any]]:
    """The field of configuration that the card and its base cards have, by name, and what they say together."""
    given: dict[str, Mapping[str, Any]] = {}
    current: AssetCard | None = card
    while current is not None:
        for field in _CONFIG_FIELDS:
            value = current.metadata.get(field)
            if value is not None and not isinstance(value, Mapping):
                raise CardError(f"{where}: `{field}` must be a mapping of fields, but is {str(value)[:80]!r}.")
            if value:
                given[field] = _merged(value, given.get(field, {}))
        current = current.base
    if len(given) > 1:
        raise CardError(f"{where} has {' and '.join(f'`{field}`' for field in given)}, of which only one would count.")
    return given


def _merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in update.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _by_field(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nests what stands under paths."""
    given: dict[str, Any] = {}
    for path, value in overrides.items():
        within = next((other for other in overrides if path.startswith(f"{other}.")), None)
        if within is not None:
            raise ConfigError(f"`{within}` and `{path}` of the model are both overridden. Give one of them.")
        node = value
        for name in reversed(path.split(".")):
            node = {name: node}
        given = _merged(given, node)
    return given


def _changes(given: Mapping[str, Any], old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Paths, old and new values of the fields that differ now."""
    for name, value in given.items():
        if isinstance(value, Mapping) and isinstance(old[name], Mapping) and isinstance(new[name], Mapping):
            yield from _changes(value, old[name], new[name], f"{path}{name}.")
        elif old[name] != new[name]:
            yield f"{path}{name}", old[name], new[name]


def _check_fields(given: Mapping[str, Any], default: Mapping[str, Any], path: str, where: str) -> None:
    """Names and the kinds of values, before fairseq2 structures them."""
    for name, value in given.items():
        if name in _DIRECTIVES:
            continue
        if name not in default:
            raise CardError(
                f"{where}: `{path}` has no field `{name}`.{near_match(str(name), default)}\n"
                f"Fields: {', '.join(default)}."
            )
        usual, here = default[name], f"{path}.{name}"
        if isinstance(usual, Mapping):
            if not isinstance(value, Mapping):
                raise CardError(f"{where}: `{here}` must be a mapping of fields, but is {value!r}.")
            _check_fields(value, usual, here, where)
        elif isinstance(usual, (bool, int, float)) and isinstance(value, str):
            raise _wrong_kind(here, value, usual, where)


def _check_numbers(given: Mapping[str, Any], taken: Any, default: Any, path: str, where: str) -> None:
    """What became of them: fairseq2 makes 3 of 3.9, and takes true for 1."""
    for name, value in given.items():
        if name in _DIRECTIVES:
            continue
        found, usual = taken[name], default.get(name) if isinstance(default, Mapping) else None
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            _check_numbers(value, found, usual, f"{path}.{name}", where)
        elif isinstance(value, (bool, int, float)) and (value != found or _is_other_kind(value, usual)):
            raise _wrong_kind(f"{path}.{name}", value, found if usual is None else usual, where)


def _wrong_kind(field: str, value: object, expected: object, where: str) -> CardError:
    kind = next((word for kind, word in _KINDS.items() if isinstance(expected, kind)), "of another kind")
    return CardError(f"{where}: `{field}` must be {kind}, but is {value!r}.")


def _is_other_kind(value: object, usual: object) -> bool:
    return usual is not None and isinstance(value, bool) != isinstance(usual, bool)


def _trail(error: BaseException) -> str:
    """The path of a field and what is wrong with it: fairseq2 nests an exception a level."""
    path: list[str] = []
    current: BaseException | None = error
    while current is not None:
        path += re.findall(r"^`(\w+)` field", str(current))
        current = current.__cause__
    where = f"`{'.'.join(path)}`: " if path else ""
    return where + innermost(error).rstrip(".")
