"""Writes a loaded model for others to read: as safetensors, for Meta's trainer, or as LexaLCM-Pre1 was published."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
import yaml
from fairseq2.runtime.dependency import get_dependency_resolver
from safetensors.torch import save_file
from torch import Tensor

from lexalcm.checkpoints.described import DescribedModel, plain_config
from lexalcm.checkpoints.export import card_name
from lexalcm.checkpoints.export_files import ExportFiles, stored_state, write_export
from lexalcm.checkpoints.export_meta import meta_files
from lexalcm.checkpoints.export_published import published_files
from lexalcm.checkpoints.load import LoadedModel
from lexalcm.checkpoints.locate import SAFETENSORS_FILE
from lexalcm.checkpoints.resolve import CARD_FILE
from lexalcm.checkpoints.special_concepts import (
    SPECIAL_FIELD,
    SPECIAL_FILE,
    locate_special_concepts,
    special_field_of,
)
from lexalcm.errors import ConfigError, unknown_name
from lexalcm.models.base_lcm.config import BASE_FAMILY
from lexalcm.models.pre1.config import PRE1_FAMILY
from lexalcm.models.two_tower.config import TWO_TOWER_FAMILY

ExportFormat = Literal["safetensors", "meta", "huggingface"]

_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "meta": (TWO_TOWER_FAMILY, BASE_FAMILY),
    "huggingface": (PRE1_FAMILY,),
}
"""What formats of one project can hold; safetensors hold everything."""

_BESIDE: Final = f"Special concepts have no place in this layout: they lie in {SPECIAL_FILE}, which no card names."


def export_model(
    loaded: LoadedModel,
    folder: Path,
    export_format: str,
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
) -> ExportFiles:
    """Writes a model into a folder, whose name the cards in it get.

    :param dtype: Of the parameters; statistics of concepts keep theirs.
    :returns: What was written.
    :raises ConfigError: The format is unknown or cannot hold the model, or files are in the way.
    """
    family = loaded.described.family.name
    check_format(export_format, family)
    state = stored_state(loaded.model, dtype)
    name, config = card_name(folder), loaded.described.config
    if export_format == "huggingface":
        files = published_files(config, state)
    else:
        plain = plain_config(config, get_dependency_resolver())
        if export_format == "meta":
            files = meta_files(loaded.model, config, state, folder=folder, name=name, plain=plain)
        else:
            files = _plain_files(loaded.described, state, name=name, plain=plain)
    special = locate_special_concepts(loaded.described.card)
    if special is not None:
        writers = {SPECIAL_FILE: lambda path: shutil.copyfile(special, path), **files.writers}
        notes = files.notes if export_format == "safetensors" else (*files.notes, _BESIDE)
        files = replace(files, writers=writers, notes=notes)
    write_export(files, folder, overwrite=overwrite)
    return files


def check_format(export_format: str, family: str | None = None) -> None:
    """
    :param family: Of the model, where it is known yet.
    :raises ConfigError: The format is unknown, or cannot hold a model of the family.
    """
    formats = get_args(ExportFormat)
    if export_format not in formats:
        raise ConfigError(f"`--format`: {unknown_name('format', export_format, formats)}")
    allowed = _FAMILIES.get(export_format)
    if family is not None and allowed is not None and family not in allowed:
        others = [name for name in formats if family in _FAMILIES.get(name, (family,))]
        raise ConfigError(
            f"`--format {export_format}` is for the family {' and '.join(allowed)}, but this model is of {family}. "
            f"It can be written as: {', '.join(others)}."
        )


def _plain_files(
    described: DescribedModel, state: Mapping[str, Tensor], *, name: str, plain: dict[str, Any]
) -> ExportFiles:
    """A card names the weights by relative path: the folder can be moved."""
    card: dict[str, Any] = {
        "name": name,
        "model_family": described.family.name,
        "model_config": plain,
        "checkpoint": SAFETENSORS_FILE,
    }
    steps = described.card.maybe_get_field("trained_steps")
    if steps is not None:
        card["trained_steps"] = steps.value
    special = special_field_of(described.card, SPECIAL_FILE)
    if special is not None:
        card[SPECIAL_FIELD] = special
    return ExportFiles(
        {
            SAFETENSORS_FILE: lambda path: save_file(dict(state), path, metadata={"format": "pt"}),
            CARD_FILE: lambda path: path.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8"),
        }
    )
