"""What a sublayer's output goes through before it joins the residual stream."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Module

from lexalcm.models.layers.dropout import Dropout
from lexalcm.models.layers.multiply_add import multiply_add


class Residual(Module):
    """``x + gate * Dropout(branch)``; without a gate, ``x + Dropout(branch)``."""

    def __init__(self, dropout_p: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout_p)

    def forward(self, x: Tensor, branch: Tensor, gate: Tensor | None = None) -> Tensor:
        """:param x: ``[*P, M]``, as ``branch``; ``gate`` broadcasts to it."""
        branch = self.dropout(branch)
        return x + branch if gate is None else multiply_add(x, gate, branch)
