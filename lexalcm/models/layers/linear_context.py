"""A linear path from the last concepts and their mean to the clean prediction.

Shapes: N concepts (``*P``: N, or B, T), C concept_dim, F features = (number of preceding concepts + 1) * C.

Sentences follow one another almost linearly: ridge regression on the last four and the mean of all is hard to beat on a
small corpus, and a network spends its first epochs finding it. The path starts at zero, so a model begins as without
it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.init import zeros_

from lexalcm.layout import DocumentLayout
from lexalcm.models.layers.precision import precise_linear


class LinearContext(Module):
    """``W [x_{i-1}, ..., x_{i-n}, mean of x_{<i}]`` in float32; zeros stand before a document's start."""

    def __init__(self, concept_dim: int, num_previous: int) -> None:
        super().__init__()
        self.num_previous = num_previous
        self.proj = Linear((num_previous + 1) * concept_dim, concept_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        zeros_(self.proj.weight)

    def features(self, concepts: Tensor, layout: DocumentLayout) -> Tensor:
        """:param concepts: Clean, normalised ``[*P, C]``.  :returns: ``[*P, F]``."""
        parts = []
        moved = concepts
        for _ in range(self.num_previous):
            moved = layout.shift(moved)
            parts.append(moved)
        total = layout.unrows([rows.cumsum(dim=-2) for rows in layout.rows(concepts)])
        parts.append(layout.shift(total) / layout.positions.clamp(min=1).unsqueeze(-1))
        return torch.cat(parts, dim=-1)

    def next_features(self, history: Tensor) -> Tensor:
        """The features of the position after the last.  :param history: ``[B, T, C]``.  :returns: ``[B, 1, F]``."""
        padded = torch.nn.functional.pad(history, (0, 0, self.num_previous, 0))
        parts = [padded[:, -1 - back : padded.size(1) - back] for back in range(self.num_previous)]
        return torch.cat([*parts, history.mean(dim=1, keepdim=True)], dim=-1)

    def forward(self, features: Tensor, dropped: bool | Tensor | None) -> Tensor:
        """:param dropped: True where (``[*P]``) the context is not to be seen.  :returns: float32 ``[*P, C]``."""
        out = precise_linear(features, self.proj)
        if isinstance(dropped, Tensor):
            out = out.masked_fill(dropped.unsqueeze(-1), 0.0)
        return out
