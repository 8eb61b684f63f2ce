"""How fairseq2 shards, recomputes and compiles the parts of any two-tower model."""

from __future__ import annotations

from functools import partial
from typing import Any

from fairseq2.error import NotSupportedError
from fairseq2.models.utils.fsdp import apply_layerwise_fsdp
from fairseq2.nn.fsdp import FSDPWrapper
from torch.nn import Module
from torch.utils.checkpoint import checkpoint

from lexalcm.models.interface import TwoTowerModel


def apply_fsdp_to_two_towers(model: TwoTowerModel, granularity: str, wrapper: FSDPWrapper) -> Module:
    """Wraps every layer of both towers; fairseq2 itself handles the granularity ``model``."""
    if granularity == "layer":
        for tower in model.towers():
            apply_layerwise_fsdp(tower.layers, wrapper)
        return model
    raise NotSupportedError(f"`trainer.fsdp.granularity` must be `layer` or `model`, but is `{granularity}`.")


def apply_ac_to_two_towers(model: TwoTowerModel, every_nth_layer: int) -> Module:
    """Recomputes the activations of every n-th layer of both towers in the backward pass."""
    for tower in model.towers():
        for layer in tower.layers[::every_nth_layer]:
            # Not fairseq2's wrapper: the parameters inside would go by other names, and averages are kept by name.
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return model


def compile_two_towers(model: TwoTowerModel, *, dynamic: bool | None = None, **kwargs: Any) -> None:
    """Compiles the units that the model names, each with the arguments of ``torch.compile``.

    :param dynamic: Whether sizes may change between calls. By default they may: hardly any two batches hold equally many
        concepts.
    """
    for unit in model.compiled_units():
        unit.compile(dynamic=True if dynamic is None else dynamic, **kwargs)
