"""Normalizer statistics as a file: safetensors with ``center`` and ``scale``, how they were made, and a card beside it.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lexalcm.errors import CheckpointError
from lexalcm.models.normalizer.config import NORMALIZER_FAMILY, NormalizerConfig


def load_normalizer_file(path: str | Path, dim: int | None = None) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Reads statistics written by :func:`save_normalizer_file`, or any safetensors file with the same two tensors.

    :param dim: C; None takes what the file has.
    :returns: ``center`` and ``scale``, float32 ``[C]``, and the recorded facts (empty for a foreign file).
    :raises CheckpointError: The file is missing, is not safetensors, lacks a tensor, has another dimension, or holds
        values that cannot be divided by.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"normalizer file `{path}` does not exist. Make one: `fairseq2 lcm fit-normalizer DATASET {path.name}`."
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            found = {name: file.get_tensor(name) for name in ("center", "scale") if name in names}
            facts = file.metadata() or {}
    except SafetensorError as ex:
        raise CheckpointError(f"normalizer file `{path}` is not a safetensors file ({ex}).") from ex
    for name in ("center", "scale"):
        if name not in found:
            raise CheckpointError(
                f"normalizer file `{path}` must hold the tensors `center` and `scale`, but has"
                f" {', '.join(sorted(names)) or 'none'}."
            )
        shape = tuple(found[name].shape)
        if len(shape) != 1 or shape != tuple(found["center"].shape):
            raise CheckpointError(f"normalizer file `{path}`: `{name}` must be one vector, but has shape {shape}.")
    center, scale = found["center"].float(), found["scale"].float()
    if dim is not None and len(center) != dim:
        raise CheckpointError(
            f"normalizer file `{path}` was fitted on concepts of {len(center)} dimensions, but {dim} are expected. Fit"
            " one on the dataset in use, or set the model's `concept_dim`."
        )
    if not (torch.isfinite(center).all() and torch.isfinite(scale).all() and (scale > 0).all()):
        raise CheckpointError(
            f"normalizer file `{path}` must hold finite numbers and positive scales, but does not. Fit it again."
        )
    return center, scale, {key: _read_fact(value) for key, value in facts.items()}


def save_normalizer_file(path: str | Path, center: Tensor, scale: Tensor, facts: dict[str, Any]) -> None:
    """Writes statistics; a file that stands there is replaced only when the new one is complete.

    :param facts: What to record beside the tensors; anything that JSON can hold.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {"center": center.float().contiguous(), "scale": scale.float().contiguous()}
    try:
        save_file(tensors, aside, metadata={key: json.dumps(value) for key, value in facts.items()})
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_normalizer_card(path: str | Path, config: NormalizerConfig) -> Path:
    """Writes ``<stem>.yaml`` beside a statistics file: a model card that names it by relative path.

    :param config: How the statistics were fitted; what differs from arch ``base`` goes into the card.
    :returns: The card's path.
    """
    path = Path(path)
    card: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9_.\-]", "_", path.stem),
        "model_family": NORMALIZER_FAMILY,
        "model_arch": "base",
    }
    base = vars(NormalizerConfig())
    changed = {key: value for key, value in vars(config).items() if value != base[key]}
    if changed:
        card["model_config"] = changed
    card["checkpoint"] = path.name
    card_path = path.with_suffix(".yaml")
    card_path.write_text(yaml.safe_dump(card, sort_keys=False), encoding="ascii")
    return card_path


def _read_fact(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
