"""SwiGLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module


class SwiGLU(Module):
    """``output_proj(SiLU(gate_proj(x)) * inner_proj(x))``, all three with bias."""

    def __init__(self, model_dim: int, inner_dim: int) -> None:
        super().__init__()
        self.gate_proj = Linear(model_dim, inner_dim)
        self.inner_proj = Linear(model_dim, inner_dim)
        self.output_proj = Linear(inner_dim, model_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_proj(F.silu(self.gate_proj(x)) * self.inner_proj(x))
