"""Linear layers for a few rows at a time on the CPU.

With one row a document, generation reads every weight for a handful of multiplications. oneDNN, which torch brings, has
kernels for that on weights that are laid out for it beforehand; torch's own path is two to three times slower from 2 to
16 rows. torch offers them to its compiler only, so that all of this is used where it is found to work, and nowhere else.
"""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from lexalcm.memory import available_memory

ModuleT = TypeVar("ModuleT", bound=Module)

_ROWS = 16
"""For how many rows weights are laid out; others run as well."""

_SPARE = 2
"""Weights are copied only where this many times their size is free."""


class PackedLinear(Module):
    """A linear layer on a copy of its weight; for float32 on the CPU, in inference."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_dim = weight.size(0)
        # Attributes, not buffers: nothing may move or cast a packed weight.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x, "none")

    def silu(self, x: Tensor) -> Tensor:
        """``SiLU(W x + b)`` in one pass."""
        return self._run(x, "swish")

    def times(self, x: Tensor, factor: Tensor) -> Tensor:
        """``factor * (W x + b)`` in one pass.  :param factor: Of the shape of the result."""
        rows, factors = x.reshape(-1, x.size(-1)), factor.reshape(-1, self.out_dim)
        out = torch.ops.mkldnn._linear_pointwise.binary(rows, factors, self._packed, self._bias, "mul")
        return out.view(factor.shape)

    def _run(self, x: Tensor, activation: str) -> Tensor:
        rows = x.reshape(-1, x.size(-1))
        out = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, activation, [], "")
        return out.view(*x.shape[:-1], self.out_dim)


class FixedLinear(Module):
    """A linear layer of given tensors."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def fixed_linear(weight: Tensor, bias: Tensor | None) -> Module:
    """A linear layer for inference, packed where that works."""
    return PackedLinear(weight, bias) if _can_pack(weight) else FixedLinear(weight, bias)


def with_packed_linears(module: ModuleT) -> ModuleT:
    """A copy of a module for inference whose linear layers are packed where that works; all else is shared."""
    if isinstance(module, Linear):
        # Read once: that of weight normalisation is computed at each reading.
        weight = module.weight
        return PackedLinear(weight, module.bias) if _can_pack(weight) else module  # type: ignore[return-value]
    twin = copy(module)
    twin._modules = {
        name: None if child is None else with_packed_linears(child) for name, child in module._modules.items()
    }
    return twin


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not _packing_works():
        return False
    free = available_memory(weight.device)
    return free is None or free > _SPARE * weight.nbytes


@cache
def _packing_works() -> bool:
    """Whether this torch has the operations, and they compute what they should."""
    if not torch.backends.mkldnn.is_available():
        return False
    weight, bias, x = torch.linspace(-1, 1, 24).view(4, 6), torch.ones(4), torch.linspace(0, 1, 12).view(2, 6)
    try:
        layer = PackedLinear(weight, bias)
        found = [layer(x), layer.silu(x), layer.times(x, layer(x))]
    except (AttributeError, RuntimeError, TypeError):
        return False
    plain = F.linear(x, weight, bias)
    return torch.allclose(torch.stack(found), torch.stack([plain, F.silu(plain), plain * plain]), atol=1e-5)
