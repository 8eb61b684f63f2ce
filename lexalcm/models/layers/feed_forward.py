"""Feed-forward networks."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor
from torch.nn import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    LeakyReLU,
    Linear,
    Module,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softsign,
    Tanh,
)

from lexalcm.models.layers.packed_linear import PackedLinear
from lexalcm.models.layers.precision import PreciseLayerNorm

ActivationName = Literal[
    "relu",
    "tanh",
    "elu",
    "leaky_relu",
    "prelu",
    "selu",
    "gelu",
    "silu",
    "softsign",
    "sigmoid",
    "hardsigmoid",
]

_ACTIVATIONS: dict[str, type[Module]] = {
    "relu": ReLU,
    "tanh": Tanh,
    "elu": ELU,
    "leaky_relu": LeakyReLU,
    "prelu": PReLU,
    "selu": SELU,
    "gelu": GELU,
    "silu": SiLU,
    "softsign": Softsign,
    "sigmoid": Sigmoid,
    "hardsigmoid": Hardsigmoid,
}


def create_activation(name: ActivationName) -> Module:
    """PyTorch's activation of that name with its defaults (``gelu`` exact, ``prelu`` with one learned slope)."""
    return _ACTIVATIONS[name]()


class SwiGLU(Module):
    """``output_proj(SiLU(gate_proj(x)) * inner_proj(x))``, all three with bias."""

    def __init__(self, model_dim: int, inner_dim: int) -> None:
        super().__init__()
        self.gate_proj = Linear(model_dim, inner_dim)
        self.inner_proj = Linear(model_dim, inner_dim)
        self.output_proj = Linear(inner_dim, model_dim)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.gate_proj, PackedLinear) and isinstance(self.inner_proj, PackedLinear):
            return self.output_proj(self.inner_proj.times(x, self.gate_proj.silu(x)))
        return self.output_proj(F.silu(self.gate_proj(x)) * self.inner_proj(x))


class FeedForward(Module):
    """``output_proj(activation(inner_proj(x)))``, with a LayerNorm before the last layer if asked for."""

    def __init__(self, model_dim: int, inner_dim: int, activation: ActivationName, *, inner_norm: bool = False) -> None:
        super().__init__()
        self.inner_proj = Linear(model_dim, inner_dim)
        self.inner_activation = create_activation(activation)
        self.inner_layer_norm = PreciseLayerNorm(inner_dim) if inner_norm else None
        self.output_proj = Linear(inner_dim, model_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner_activation(self.inner_proj(x))
        if self.inner_layer_norm is not None:
            x = self.inner_layer_norm(x)
        return self.output_proj(x)
