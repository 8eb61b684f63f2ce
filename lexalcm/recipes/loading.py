"""From a recipe's name or path, and ``--config`` overrides, to a checked configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from fairseq2.assets import AssetCard, AssetStore
from fairseq2.models import ModelFamily
from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.utils.structured import StructureError, ValueConverter
from torch.optim import Optimizer

from lexalcm.checkpoints.described import DescribedModel, describe_model
from lexalcm.checkpoints.locate import has_weights, is_remote, locate_weights
from lexalcm.checkpoints.normalizer_card import with_normalizer
from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.checkpoints.weights import check_weights
from lexalcm.errors import CheckpointError, ConfigError, innermost, unknown_name
from lexalcm.recipes.check_fields import check_fields, refuse_secrets
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.recipes.host import RecipeHost, component_config_kls, component_names
from lexalcm.shipped import shipped_folder
from lexalcm.shown import shown
from lexalcm.yaml_text import parse_yaml, read_yaml

_COMPONENTS: Final = {"optimizer": Optimizer, "lr_scheduler": LRScheduler}


def find_recipe(recipe: str) -> Path:
    """Returns the file of a recipe, given by path or by the name of a shipped one.

    :raises ConfigError: There is no such recipe.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise ConfigError(f"The recipe {recipe} does not exist (looked at {path.resolve()}).")
    folder = shipped_folder("recipes")
    shipped = folder / f"{recipe}.yaml"
    if shipped.is_file():
        return shipped
    raise ConfigError(unknown_name("recipe", recipe, [p.stem for p in folder.glob("*.yaml")]) + " A path works too.")


def load_train_config(host: RecipeHost, file: Path, overrides: Sequence[str] = ()) -> LcmTrainConfig:
    """Merges the defaults, the recipe's file and ``key=value`` overrides, and checks the result.

    :raises ConfigError: A field is misspelt, of another type, or cannot be honoured.
    """
    merged = host.unstructure(LcmTrainConfig())
    _merge(merged, _read_yaml(file))
    for override in overrides:
        _merge(merged, _parse_override(override))
    check_fields(merged, LcmTrainConfig)
    refuse_secrets(merged, "")
    config = _structure(host, merged, file)
    if config.model.name is not None and config.model.path is None:
        _take_card(host, host.asset_store(config), merged["model"])
        config = _structure(host, merged, file)
    elif config.model.path is not None and config.model.family is not None:
        section = merged["model"]
        _check_weights(host, _described_by(host, section), section, config.model.path)
    return config


def _structure(host: RecipeHost, merged: dict[str, Any], file: Path) -> LcmTrainConfig:
    _check_components(host, merged)
    try:
        return host.structure(merged, LcmTrainConfig)
    except StructureError as ex:
        raise ConfigError(f"{file}: {innermost(ex)}") from ex


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        documents = read_yaml(file)
    except ValueError as ex:
        raise ConfigError(f"{file} is not valid YAML: {ex}.") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        found = type(documents[0]).__name__ if len(documents) == 1 else f"{len(documents)} documents"
        raise ConfigError(f"{file} must hold one mapping of sections, but holds {found}.")
    return documents[0]


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"`--config {text}` is not of the form key=value, say regime.num_steps=1000.")
    try:
        documents = parse_yaml(value)
    except ValueError as ex:
        raise ConfigError(f"`--config {shown(text)}`: the value is not valid YAML: {shown(ex)}.") from None
    node: Any = documents[0] if documents else None
    for part in reversed(key.strip().split(".")):
        node = {part: node}
    return node


def _merge(base: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            if "name" in value and value["name"] != old.get("name") and "config" in old:
                old["config"] = {}  # another component's fields mean nothing to this one
            _merge(old, value)
        else:
            base[key] = deepcopy(value)


def _take_card(host: RecipeHost, store: AssetStore, model: dict[str, Any]) -> None:
    """Puts what a card describes in the place of its name, under the recipe's own fields.

    fairseq2 takes every named model for a trained one, knows no cards and folders by path, and looks for the relative
    path of a base card in the wrong folder. Weights that must be fetched are left to it: it fetches them once for all
    ranks.
    """
    card = resolve_card(model["name"], store=store)
    described = describe_model(card, host.resolver)
    trained = has_weights(card)
    if trained and is_remote(card) and store.maybe_retrieve_card(model["name"]) is not None:
        return
    path = locate_weights(card, host.resolver) if trained else None
    fields = host.unstructure(with_normalizer(host.resolver, card, described.config))
    _merge(fields, model["config_overrides"] or {})
    arch = card.maybe_get_field("model_arch")
    model.update(
        name=None,
        path=None if path is None else str(path),
        family=described.family.name,
        arch=None if arch is None else arch.value,
        config_overrides=fields,
    )
    if path is not None:
        _check_weights(host, described, model, path)


def _described_by(host: RecipeHost, model: Mapping[str, Any]) -> DescribedModel:
    """What a recipe's section says of the model whose weights its ``path`` names."""
    fields = {"model_family": model["family"], "model_arch": model["arch"]}
    card = AssetCard("model", {name: value for name, value in fields.items() if value is not None})
    return replace(describe_model(card, host.resolver), where="`model` of the recipe")


def _check_weights(host: RecipeHost, described: DescribedModel, model: Mapping[str, Any], path: Path) -> None:
    """Tells what is wrong with weights before anything is built: what fairseq2 says of them is a traceback."""
    if not path.exists():
        raise CheckpointError(f"`model.path`: {path} does not exist (looked at {path.resolve()}).")
    if len(list(path.glob("pp_00/tp_00/sdp_*.pt"))) > 1:
        raise CheckpointError(
            f"{path} is in parts, one a rank, which cannot be trained on from here.\n"
            f"Put them together first: fairseq2 lcm export RUN OUT"
        )
    kls = described.family.config_kls
    fields = host.unstructure(described.config)
    _merge(fields, model["config_overrides"] or {})
    check_fields(fields, kls, "model.config_overrides")
    config = host.resolver.resolve(ValueConverter).structure(fields, kls)
    check_weights(replace(described, config=config), path)


def _check_components(host: RecipeHost, merged: dict[str, Any]) -> None:
    for section, kind in _COMPONENTS.items():
        name = merged[section]["name"]
        kls = component_config_kls(host.resolver, kind, name)
        if kls is None:
            raise ConfigError(f"`{section}.name`: {unknown_name(section, name, component_names(host.resolver, kind))}")
        check_fields(merged[section]["config"], kls, f"{section}.config")
    model = merged["model"]
    if model["family"] is not None and model["name"] is None:
        family = host.resolver.maybe_resolve(ModelFamily, key=model["family"])
        if family is None:
            known = [k for k in host.resolver.iter_keys(ModelFamily) if isinstance(k, str)]
            raise ConfigError(f"`model.family`: {unknown_name('model family', model['family'], known)}")
        if model["arch"] is not None and model["arch"] not in family.get_archs():
            raise ConfigError(f"`model.arch`: {unknown_name('architecture', model['arch'], family.get_archs())}")
        if model["compile"] and not family.supports_compilation:
            raise ConfigError(f"`model.compile`: the family {model['family']} does not support it. Leave it false.")
        if model["config_overrides"] is not None:
            check_fields(model["config_overrides"], family.config_kls, "model.config_overrides")
