"""Optimizers that fairseq2 lacks: AdamW that decays matrices alone, and Muon for matrices beside AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch
from fairseq2.runtime.dependency import DependencyResolver
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import AdamW, Muon, Optimizer

from lexalcm.errors import ConfigError

LCM_ADAMW: Final = "lcm_adamw"

MUON: Final = "muon"


@dataclass(kw_only=True)
class LcmAdamWConfig:
    """AdamW whose weight decay spares biases, norms and every other vector."""

    lr: float = 4e-4
    """The peak learning rate."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the averages of gradient and squared gradient."""

    eps: float = 1e-8
    """Added to the denominator."""

    weight_decay: float = 0.1
    """Decoupled weight decay of matrices."""


@dataclass(kw_only=True)
class MuonConfig:
    """Muon (orthogonalised momentum) for the matrices of both towers, AdamW for everything else.

    Under FSDP, torch multiplies the parts of a matrix in bfloat16 and adds them up: updates differ from those of one
    process, by some percent at most where that was looked at. Under DDP they are the same.
    """

    lr: float = 0.01
    """The peak learning rate of matrices under Muon."""

    momentum: float = 0.95
    """Momentum of Muon."""

    weight_decay: float = 0.1
    """Decoupled weight decay of matrices, Muon's and AdamW's."""

    adamw_lr: float = 1e-3
    """The peak learning rate under AdamW."""

    adamw_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""

    adamw_params: tuple[str, ...] = ("linear_context", "modulator", "timestep_encoder", "output_proj")
    """Matrices whose name contains one of these go to AdamW all the same."""


class CompositeOptimizer(Optimizer):
    """Several optimizers over disjoint parameters, behind one interface: the trainer takes exactly one.

    Its parameter groups are theirs, so that learning-rate schedulers reach every one.
    """

    def __init__(self, optimizers: list[Optimizer]) -> None:
        super().__init__([p for o in optimizers for g in o.param_groups for p in g["params"]], {})
        self._optimizers = optimizers
        self.param_groups = [group for optimizer in optimizers for group in optimizer.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for optimizer in self._optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        state = {"optimizers": [optimizer.state_dict() for optimizer in self._optimizers]}
        for hook in self._optimizer_state_dict_post_hooks.values():
            state = hook(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        for optimizer, state in zip(self._optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)


def create_lcm_adamw(resolver: DependencyResolver, config: LcmAdamWConfig) -> Optimizer:
    """Builds AdamW over the model's trainable parameters."""
    _check_rates("lr", config.lr)
    groups = _decay_groups(_trainable(resolver.resolve(Module)), config.weight_decay)
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def create_muon(resolver: DependencyResolver, config: MuonConfig) -> Optimizer:
    """Builds Muon over matrices and AdamW over the rest.

    The update is scaled so that a learning rate means about what it means for AdamW (``match_rms_adamw``).
    """
    _check_rates("lr", config.lr)
    _check_rates("adamw_lr", config.adamw_lr)
    matrices: list[Tensor] = []
    rest: list[tuple[str, Parameter]] = []
    for name, parameter in _trainable(resolver.resolve(Module)):
        if parameter.dim() == 2 and not any(part in name for part in config.adamw_params):
            matrices.append(parameter)
        else:
            rest.append((name, parameter))
    muon = Muon(
        matrices,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = _decay_groups(rest, config.weight_decay)
    adamw = AdamW(groups, lr=config.adamw_lr, betas=config.adamw_betas, fused=True)
    return CompositeOptimizer([muon, adamw])


def _trainable(model: Module) -> list[tuple[str, Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def _decay_groups(parameters: Iterable[tuple[str, Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(parameters)
    decayed = [p for _, p in parameters if p.dim() >= 2]
    spared = [p for _, p in parameters if p.dim() < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def _check_rates(name: str, value: float) -> None:
    if not value > 0.0:
        raise ConfigError(f"`optimizer.config.{name}` must be above 0, but is {value}.")
