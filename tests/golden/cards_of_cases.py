"""Loads the model of a golden case as a user would: through a card of the model and one of its normalizer."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from torch.nn import Module

from lexalcm import load_model


def load_case_model(folder: Path, **fields: Any) -> Module:
    """:param fields: More fields of the model's configuration."""
    config = _config(folder)
    with TemporaryDirectory() as place:
        card = {
            "name": "golden_model",
            "model_family": config["model_family"],
            "model_config": {**config["model_config"], **fields},
            "checkpoint": (folder / "model.pt").resolve().as_uri(),
        }
        file = Path(place) / "golden_model.yaml"
        file.write_text(yaml.safe_dump(card))
        if config.get("sonar_normalizer_config") is not None:
            write_normalizer_card(folder, Path(place))
        return load_model(file)


def write_normalizer_card(folder: Path, place: Path) -> None:
    """Writes the card that the models of all cases name."""
    card = {
        "name": "golden_normalizer",
        "model_family": "sonar_normalizer",
        "model_config": _config(folder)["sonar_normalizer_config"],
        "checkpoint": (folder / "normalizer.pt").resolve().as_uri(),
    }
    (place / "golden_normalizer.yaml").write_text(yaml.safe_dump(card))


def _config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))
