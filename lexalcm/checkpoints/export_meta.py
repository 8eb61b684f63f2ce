"""The layout of Meta's trainer (specification, 8.5): ``model.pt`` with a card, and the same of its normalizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from torch import Tensor
from torch.nn import Module

from lexalcm.checkpoints.export_files import ExportFiles, Writer
from lexalcm.checkpoints.locate import TORCH_FILE
from lexalcm.checkpoints.normalizer_file import save_normalizer_file
from lexalcm.checkpoints.resolve import META_CARD_FILE
from lexalcm.errors import ConfigError
from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.normalizer.config import NORMALIZER_FAMILY
from lexalcm.models.normalizer.model import ConceptNormalizer
from lexalcm.models.two_tower.config import TwoTowerConfig

_NORMALIZER_FILE: Final = "normalizer.pt"
_NORMALIZER_CARD_FILE: Final = "normalizer.yaml"

_OWN_FIELDS: Final = ("normalizer", "query_positions")
"""Of our configurations, which Meta's do not have."""


def meta_files(
    model: Module,
    config: TwoTowerConfig | BaseConfig,
    state: Mapping[str, Tensor],
    *,
    folder: Path,
    name: str,
    plain: dict[str, Any],
) -> ExportFiles:
    """
    :param folder: Where the files will lie: cards name them by absolute path, as Meta's trainer does, since its loader
        knows no folder of a card that it is given.
    :param plain: ``config`` as plain data.
    :raises ConfigError: The model computes what Meta's code does not.
    """
    if isinstance(config, TwoTowerConfig):
        _check_positions(config)
    folder = folder.resolve()
    normalizer = next((part for part in model.modules() if isinstance(part, ConceptNormalizer)), None)
    fields = {key: value for key, value in plain.items() if key not in _OWN_FIELDS}
    fields["sonar_normalizer_name"] = None if normalizer is None else f"{name}_normalizer"
    _write_as_whole(fields.get("noise_scheduler", {}), "sigmoid_schedule_beta")
    files: dict[str, Writer] = {
        TORCH_FILE: lambda path: torch.save({"model": dict(state), "model_key": "model"}, path),
    }
    if normalizer is not None:
        statistics = normalizer.statistics
        files[_NORMALIZER_FILE] = lambda path: save_normalizer_file(path, statistics, {})
        normalizer_card = {
            "name": fields["sonar_normalizer_name"],
            "model_family": NORMALIZER_FAMILY,
            "model_arch": "base",
            "model_config": plain["normalizer"] if plain["normalizer"] is not None else {"dim": config.sonar_embed_dim},
            "checkpoint": (folder / _NORMALIZER_FILE).as_uri(),
        }
        files[_NORMALIZER_CARD_FILE] = lambda path: _write_card(normalizer_card, path)
    card = {
        "__source__": "inproc",
        "checkpoint": (folder / TORCH_FILE).as_uri(),
        "model_config": fields,
        "model_family": config.model_type,
        "name": name,
    }
    files[META_CARD_FILE] = lambda path: _write_card(card, path)
    return ExportFiles(
        files, ("The cards name absolute paths, as Meta's do: write them anew where the folder is moved.",)
    )


def _check_positions(config: TwoTowerConfig) -> None:
    style = config.denoiser.pos_embedding_style
    if style != "none" and config.query_positions != "meta_compatible":
        raise ConfigError(
            f"`query_positions: {config.query_positions}` counts positions in another way than Meta's code, and "
            f"`denoiser.pos_embedding_style: {style}` has them.\n"
            f"The format safetensors keeps it; for Meta, train with `query_positions: meta_compatible`."
        )


def _write_as_whole(fields: dict[str, Any], name: str) -> None:
    """Meta's configuration holds a whole number there."""
    if name in fields and float(fields[name]).is_integer():
        fields[name] = int(fields[name])


def _write_card(card: Mapping[str, Any], path: Path) -> None:
    path.write_text(yaml.safe_dump(dict(card), sort_keys=True), encoding="utf-8")
