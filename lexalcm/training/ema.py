"""Exponential moving average of a model's parameters, kept in the optimizer's own state.

fairseq2 saves and restores exactly four states: trainer, model, optimizer and data reader. Riding on the optimizer
through torch's public hooks, the average is saved and restored with it, whatever the optimizer, under DDP and FSDP2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module
from torch.optim import Optimizer

from lexalcm.errors import CheckpointError, ConfigError


class ExponentialMovingAverage:
    """``average <- decay * average + (1 - decay) * parameter`` after every optimizer step.

    The decay is warmed up as ``min(decay, (1 + step) / (10 + step))``, so that the random initialisation is forgotten.
    """

    STATE_KEY = "ema"

    def __init__(self, model: Module, optimizer: Optimizer, *, decay: float) -> None:
        """:raises ConfigError: ``decay`` is not in (0, 1)."""
        if not 0.0 < decay < 1.0:
            raise ConfigError(f"`ema.decay` must be between 0 and 1 (say 0.999), but is {decay}.")
        self._model = model
        self._decay = decay
        self._num_steps = 0
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}
        optimizer.register_step_post_hook(self._after_step)
        optimizer.register_state_dict_post_hook(self._add_state)
        optimizer.register_load_state_dict_pre_hook(self._take_state)

    @property
    def averages(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return self._averages

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside, the model's parameters are the averaged ones."""
        # Under FSDP2 a validation runs on whole parameters, which are other tensors than those that training shards.
        current = {name: p for name, p in self._model.named_parameters() if name in self._averages}
        averages = {name: _as_whole_as(current[name], average) for name, average in self._averages.items()}
        _swap(current, averages)
        try:
            yield
        finally:
            _swap(current, averages)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if all(p.grad is None for p in self._parameters.values()):
            return  # the step was not taken
        self._num_steps += 1
        decay = min(self._decay, (1 + self._num_steps) / (10 + self._num_steps))
        averages = list(self._averages.values())
        torch._foreach_lerp_(averages, [p.detach() for p in self._parameters.values()], 1.0 - decay)

    def _add_state(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        averages = {name: _local(average) for name, average in self._averages.items()}
        state_dict[self.STATE_KEY] = {"num_steps": self._num_steps, "averages": averages}

    @torch.no_grad()
    def _take_state(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        state_dict = dict(state_dict)
        saved = state_dict.pop(self.STATE_KEY, None)
        if saved is None:
            raise CheckpointError(
                "The checkpoint to resume from has no averaged weights, but `ema.decay` is set.\n"
                "Set `ema.decay=null` as it was when the run began, or train into another folder."
            )
        self._num_steps = int(saved["num_steps"])
        for name, average in self._averages.items():
            _local(average).copy_(saved["averages"][name])
        return state_dict


@torch.no_grad()
def _swap(parameters: dict[str, Tensor], averages: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        kept = parameter.detach().clone()
        parameter.copy_(averages[name])
        averages[name].copy_(kept)


def _as_whole_as(parameter: Tensor, average: Tensor) -> Tensor:
    """Gathers a sharded average where the parameter is not sharded (any more)."""
    if isinstance(average, DTensor) and not isinstance(parameter, DTensor):
        return average.full_tensor()
    return average


def _local(x: Tensor) -> Tensor:
    """The shard of this rank under FSDP2, else the tensor itself."""
    return x.to_local() if isinstance(x, DTensor) else x
