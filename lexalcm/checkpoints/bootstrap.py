"""A fresh model as a checkpoint with its card: what training from scratch would begin with, written down."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from fairseq2.assets import AssetCard
from fairseq2.gang import create_fake_gangs
from fairseq2.models import ModelFamily
from fairseq2.runtime.dependency import DependencyLookup, DependencyResolver, get_dependency_resolver
from safetensors.torch import save_file

from lexalcm.checkpoints.described import DescribedModel, describe_model, plain_config
from lexalcm.checkpoints.export_files import ExportFiles, Writer, stored_state, write_export
from lexalcm.checkpoints.locate import SAFETENSORS_FILE
from lexalcm.checkpoints.normalizer_card import with_normalizer
from lexalcm.checkpoints.resolve import CARD_FILE
from lexalcm.checkpoints.special_concepts import (
    SPECIAL_FIELD,
    SPECIAL_FILE,
    SpecialConceptsOfModel,
    save_special_concepts,
    special_field,
)
from lexalcm.checkpoints.weights import create_model
from lexalcm.errors import CardError, ConfigError
from lexalcm.memory import check_fits, format_bytes
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.normalizer.statistics import NormalizerStatistics

_CPU: Final = torch.device("cpu")
_CONFIG_FIELDS: Final = ("model_config", "model_config_override", "model_config_overrides")


@dataclass(frozen=True)
class FreshModel:
    """A model that can be made, and has not been yet."""

    described: DescribedModel

    shell: TwoTowerModel
    """On the meta device if its family can be built there: its shapes, without numbers."""

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.shell.parameters())

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Of its tensors, with parameters of ``dtype``."""
        return self.num_parameters * dtype.itemsize + sum(buffer.nbytes for buffer in self.shell.buffers())


def plan_fresh_model(card: AssetCard, overrides: Mapping[str, Any]) -> FreshModel:
    """
    :param card: Of a model, whose weights are of no interest, or of an architecture.
    :param overrides: Fields of its configuration to change, by path: ``{"schedule.kind": "linear"}``.
    :raises CardError: It is no concept model's.
    :raises ConfigError: There is no such field, or its value cannot be one.
    """
    resolver = get_dependency_resolver()
    described = _describe(card, overrides, resolver)
    if not issubclass(described.family.kls, TwoTowerModel):
        raise CardError(f"{described.where} is of the family {described.family.name}, which cannot be trained.")
    described = replace(described, config=with_normalizer(resolver, card, described.config))
    shell = create_model(described, create_fake_gangs(_CPU), torch.float32, meta=described.family.supports_meta)
    assert isinstance(shell, TwoTowerModel)
    return FreshModel(described, shell)


def card_of_arch(name: str) -> AssetCard | None:
    """The card that an architecture of a family here would have; ``None`` if none has that name."""
    families = DependencyLookup(get_dependency_resolver(), ModelFamily)
    for key in sorted(key for key in families.iter_keys() if isinstance(key, str)):
        family = families.maybe_get(key)
        if family is not None and issubclass(family.kls, TwoTowerModel) and name in family.get_archs():
            return AssetCard(name, {"model_family": family.name, "model_arch": name})
    return None


def check_free(folder: Path, *, overwrite: bool) -> None:
    """:raises ConfigError: A model lies there that must not be replaced, or it is no folder."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"OUT must be a folder, but {folder} is a file.")
    existing = [name for name in (SAFETENSORS_FILE, CARD_FILE, SPECIAL_FILE) if (folder / name).exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"{folder} holds {' and '.join(existing)} already. Name another folder, or replace them with --overwrite."
        )


def write_fresh_model(
    fresh: FreshModel,
    folder: Path,
    *,
    name: str,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    statistics: NormalizerStatistics | None = None,
    special: SpecialConceptsOfModel | None = None,
) -> None:
    """Makes the model and writes it. The same arguments give the same bytes.

    It is initialised in float32 on the CPU, as a recipe with that ``common.seed`` does it there.

    :param name: Of the card.
    :param dtype: Of the parameters as they are written; statistics keep float32.
    :param statistics: Of the normalizer; ``None`` leaves it the identity.
    :raises ConfigError: It finds no place in memory or on the disk.
    """
    described = fresh.described
    num_bytes = fresh.num_bytes(torch.float32)
    # Its writer copies every tensor before the first one is in the file.
    check_fits(num_bytes + fresh.num_bytes(dtype), _CPU, what=f"{described.where}: making and writing the model")
    _check_disk(folder, fresh.num_bytes(dtype))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_model(described, create_fake_gangs(_CPU), torch.float32, meta=False)
    assert isinstance(model, TwoTowerModel)
    if statistics is not None:
        model.set_normalizer(**statistics.tensors())
    state = stored_state(model, dtype)
    card: dict[str, Any] = {
        "name": name,
        "model_family": described.family.name,
        "model_config": plain_config(described.config, get_dependency_resolver()),
        "checkpoint": SAFETENSORS_FILE,
        "trained_steps": 0,
        "seed": seed,
    }
    writers: dict[str, Writer] = {
        SAFETENSORS_FILE: lambda path: save_file(state, path, metadata={"format": "pt"}),
    }
    if special is not None:
        card[SPECIAL_FIELD] = special_field(special, SPECIAL_FILE)
        # The card names their roles. In the file, several notes would stand in another order each time.
        plain = replace(special, prefix=None, suffix=None, target_suffix=None)
        writers[SPECIAL_FILE] = lambda path: save_special_concepts(path, plain)
    writers[CARD_FILE] = lambda path: path.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    write_export(ExportFiles(writers), folder, overwrite=True)


def _describe(card: AssetCard, overrides: Mapping[str, Any], resolver: DependencyResolver) -> DescribedModel:
    described = describe_model(card, resolver)
    if not overrides:
        return described
    # What a card says is checked and merged as a whole: one that builds on the card and says what is overridden.
    field = next((field for field in _CONFIG_FIELDS if card.has_field(field)), _CONFIG_FIELDS[0])
    over = AssetCard(card.name, {field: _nested(overrides), "__source__": card.metadata.get("__source__", "")}, card)
    try:
        return describe_model(over, resolver)
    except CardError as ex:
        raise ConfigError(f"`--config`: {ex}") from ex


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in overrides.items():
        whole = next((other for other in overrides if path.startswith(f"{other}.")), None)
        if whole is not None:
            raise ConfigError(f"`--config` has both `{whole}` and `{path}`, which is a part of it. Give one of them.")
        *parts, last = path.split(".")
        node = nested
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = value
    return nested


def _check_disk(folder: Path, num_bytes: int) -> None:
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    if num_bytes > free:
        raise ConfigError(
            f"The model takes {format_bytes(num_bytes)}, but the disk of {folder} has {format_bytes(free)} left."
        )
