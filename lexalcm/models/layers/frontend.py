"""How concepts enter the towers of LexaLCM-Pre1, and what stands between these.

Shapes: ``...`` positions, C concept_dim, M model_dim.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from lexalcm.models.layers.dropout import Dropout
from lexalcm.models.layers.precision import PreciseLayerNorm, RMSNorm, precise_linear


class Frontend(Module):
    """``SiLU(W LayerNorm(x) + b)``: the door of concepts into a tower."""

    def __init__(self, concept_dim: int, model_dim: int) -> None:
        super().__init__()
        self.norm = PreciseLayerNorm(concept_dim)
        self.proj = Linear(concept_dim, model_dim)

    def forward(self, x: Tensor, *, precise: bool = False) -> Tensor:
        """:param precise: Project in float32 too, as the noisy concept needs."""
        x = self.norm(x)
        return F.silu(precise_linear(x, self.proj) if precise else self.proj(x))


class LatentBridge(Module):
    """``Dropout(GELU(W RMSNorm(x) + b))`` between the towers, exact GELU."""

    def __init__(self, concept_dim: int, dropout_p: float) -> None:
        super().__init__()
        self.norm = RMSNorm(concept_dim)
        self.proj = Linear(concept_dim, concept_dim)
        self.dropout = Dropout(dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(F.gelu(self.proj(self.norm(x))))
