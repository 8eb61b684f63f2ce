"""Loads a trained model by card name, card file or run folder."""

from __future__ import annotations

from pathlib import Path

import torch
from fairseq2.assets import AssetCard, AssetCardError
from fairseq2.device import Device
from fairseq2.gang import create_fake_gangs
from fairseq2.model_checkpoint import CorruptModelCheckpointError
from fairseq2.models import ModelFamily, ModelGatedError
from fairseq2.runtime.dependency import DependencyLookup, get_dependency_resolver
from safetensors import SafetensorError
from torch.nn import Module

from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.errors import CardError, CheckpointError, innermost, unknown_name


def load_model(source: str | Path, *, device: Device | str = "cpu", dtype: torch.dtype = torch.float32) -> Module:
    """Loads a model, ready for inference.

    :param source: A card's name, a card file, or the folder of a training run.
    :param dtype: Of the parameters; the normalizer's statistics stay float32.
    :raises CardError: No such card, or not a model's.
    :raises CheckpointError: The weights are missing, damaged, or do not fit the card.
    """
    card = resolve_card(source)
    families = DependencyLookup(get_dependency_resolver(), ModelFamily)
    field = card.maybe_get_field("model_family")
    if field is None:
        raise CardError(f"{_where(card)} is not a model's card: it has no `model_family`.")
    family = families.maybe_get(field.as_(str))
    if family is None:
        known = [key for key in families.iter_keys() if isinstance(key, str)]
        raise CardError(f"{_where(card)}: `model_family`: {unknown_name('model family', field.as_(str), known)}")
    gangs = create_fake_gangs(torch.device(device))
    try:
        config = family.get_model_config(card)
        model = family.load_model(card, gangs, dtype, config, load_rank0_only=False, mmap=False)
    except ModelGatedError:
        raise CardError(
            f"{_where(card)} names an architecture without weights: none are published for it.\n"
            f"Train your own with a recipe, or write a card with a `checkpoint`."
        ) from None
    except (CorruptModelCheckpointError, AssetCardError, SafetensorError) as ex:
        raise CheckpointError(f"{_where(card)} cannot be loaded{_weights(card)}: {innermost(ex)}") from ex
    model.eval()
    return model


def _where(card: AssetCard) -> str:
    source = card.metadata.get("__source__")
    return f"Card {card.name}" + (f" ({source})" if source else "")


def _weights(card: AssetCard) -> str:
    """The file of weights and its size, if it is a local one."""
    field = card.maybe_get_field("checkpoint")
    if field is None or not isinstance(field.value, str):
        return ""
    path = Path(field.value.removeprefix("file://"))
    return f" from {path} ({path.stat().st_size:,} bytes)" if path.is_file() else ""
