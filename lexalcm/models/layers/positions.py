"""Absolute positions added to a tower's input.

Shapes: ``*P`` positions, M model_dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.init import normal_

from lexalcm.models.layers.precision import at_least_float32


class LearnedPositions(Module):
    """``x + weight[p]``."""

    def __init__(self, max_seq_len: int, model_dim: int, *, std: float) -> None:
        """:param std: Of the initial weights."""
        super().__init__()
        self.weight = Parameter(normal_(torch.empty(max_seq_len, model_dim), std=std))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """:param x: ``[..., *P, M]``.  :param positions: int64 ``[*P]``."""
        return (x + torch.nn.functional.embedding(positions, self.weight)).to(x.dtype)


class SinePositions(Module):
    """``x + [sin(p f), cos(p f)]`` with ``f_i = 10000^(-i / (M/2 - 1))``, added in float32; no parameters."""

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """:param x: ``[..., *P, M]``.  :param positions: int64 ``[*P]``."""
        precise = at_least_float32(x)
        half = x.size(-1) // 2
        steps = torch.arange(half, dtype=precise.dtype, device=x.device)
        angles = positions.to(precise.dtype).unsqueeze(-1) * torch.exp(-math.log(10000.0) / (half - 1) * steps)
        return (precise + torch.cat([angles.sin(), angles.cos()], dim=-1)).to(x.dtype)
