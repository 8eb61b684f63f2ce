"""Loads a trained model by card name, card file or folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from fairseq2.device import Device
from fairseq2.gang import create_fake_gangs
from fairseq2.nn.utils.module import reset_non_persistent_buffers, to_empty
from fairseq2.runtime.dependency import get_dependency_resolver
from torch.nn import Module

from lexalcm.checkpoints.described import DescribedModel, describe_model, with_overrides
from lexalcm.checkpoints.locate import locate_weights
from lexalcm.checkpoints.normalizer_card import with_normalizer
from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.checkpoints.weights import create_model, read_weights
from lexalcm.memory import check_can_be_mapped, check_fits


@dataclass(frozen=True)
class LoadedModel:
    model: Module

    described: DescribedModel


def load_model(
    source: str | Path,
    *,
    device: Device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    overrides: Mapping[str, Any] | None = None,
) -> Module:
    """Loads a model, ready for inference: the whole of it, or an error.

    :param source: A card's name, a card file, or a folder: of a training run, here or of Meta's trainer, of an
        export, or of LexaLCM-Pre1 as it was published.
    :param dtype: Of the parameters; the normalizer's statistics stay float32.
    :param overrides: Fields of the model's configuration to change against what it was trained with, by path:
        ``{"schedule.kind": "linear"}``. Each is warned of.
    :raises CardError: No such card, or not a model's.
    :raises CheckpointError: The weights are missing, damaged, or do not fit the configuration.
    :raises ConfigError: The configuration cannot be honoured, or the device has not enough memory.
    """
    return load_described(source, device=device, dtype=dtype, overrides=overrides).model


def load_described(
    source: str | Path,
    *,
    device: Device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    overrides: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """:func:`load_model` for who wants to know what the card said too."""
    resolver = get_dependency_resolver()
    described = describe_model(resolve_card(source), resolver)
    if overrides:
        described = with_overrides(described, overrides, resolver)
    path = locate_weights(described.card, resolver)
    described = replace(described, config=with_normalizer(resolver, described.card, described.config))
    gangs = create_fake_gangs(torch.device(device))
    meta = described.family.supports_meta
    model = create_model(described, gangs, dtype, meta=meta)
    if meta:
        _check_room(model, path, gangs.root.device, described.where)
    weights = read_weights(described, path, model)
    if meta:
        to_empty(model, device=gangs.root.device)
    state = model.state_dict()
    with torch.no_grad():
        for name, value in weights:
            state[name].copy_(value)
    if meta:
        # Tables that no checkpoint holds.
        reset_non_persistent_buffers(model)
    model.eval()
    return LoadedModel(model, described)


def _check_room(model: Module, path: Path, device: Device, where: str) -> None:
    """:raises ConfigError: The model or the files of its weights find no place in memory."""
    num_bytes = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
    check_fits(num_bytes, device, what=f"{where}: the model")
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    mapped = sum(file.stat().st_size for file in files)
    # Its reader maps a safetensors file twice, and lets go of one before the model is filled.
    beside = num_bytes if device.type == "cpu" else 0
    check_can_be_mapped(max(2 * mapped, mapped + beside), what=f"{where}: reading {path}")
