"""Loads a trained model by card name, card file or folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from fairseq2.device import Device
from fairseq2.gang import create_fake_gangs
from fairseq2.nn.utils.module import reset_non_persistent_buffers, to_empty
from fairseq2.runtime.dependency import get_dependency_resolver
from torch.nn import Module

from lexalcm.checkpoints.described import DescribedModel, describe_model
from lexalcm.checkpoints.locate import locate_weights
from lexalcm.checkpoints.normalizer_card import with_normalizer
from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.checkpoints.weights import create_model, read_weights


@dataclass(frozen=True)
class LoadedModel:
    model: Module

    described: DescribedModel


def load_model(source: str | Path, *, device: Device | str = "cpu", dtype: torch.dtype = torch.float32) -> Module:
    """Loads a model, ready for inference: the whole of it, or an error.

    :param source: A card's name, a card file, or a folder: of a training run, here or of Meta's trainer, of an
        export, or of LexaLCM-Pre1 as it was published.
    :param dtype: Of the parameters; the normalizer's statistics stay float32.
    :raises CardError: No such card, or not a model's.
    :raises CheckpointError: The weights are missing, damaged, or do not fit the card.
    :raises ConfigError: The card's configuration cannot be honoured.
    """
    return load_described(source, device=device, dtype=dtype).model


def load_described(
    source: str | Path, *, device: Device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedModel:
    """:func:`load_model` for who wants to know what the card said too."""
    resolver = get_dependency_resolver()
    described = describe_model(resolve_card(source), resolver)
    path = locate_weights(described.card, resolver)
    described = replace(described, config=with_normalizer(resolver, described.card, described.config))
    gangs = create_fake_gangs(torch.device(device))
    meta = described.family.supports_meta
    model = create_model(described, gangs, dtype, meta=meta)
    weights = read_weights(described, path, model)
    if meta:
        to_empty(model, device=gangs.root.device)
    state = model.state_dict()
    with torch.no_grad():
        for name, value in weights.items():
            state[name].copy_(value)
    if meta:
        # Tables that no checkpoint holds.
        reset_non_persistent_buffers(model)
    model.eval()
    return LoadedModel(model, described)
