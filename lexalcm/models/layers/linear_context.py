"""A linear path from the last concepts and their mean to the clean prediction.

Shapes: N concepts (``*P``: N, or B, T), C concept_dim, F features = (number of preceding concepts + 1) * C.

Sentences follow one another almost linearly: ridge regression on the last four and the mean of all is hard to beat on a
small corpus, and a network spends its first epochs finding it. The path starts at zero, so a model begins as without
it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.init import zeros_
from typing_extensions import Self

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

    def forward(self, features: Tensor) -> Tensor:
        """:param features: ``[*P, F]``.  :returns: float32 ``[*P, C]``."""
        return precise_linear(features, self.proj)


class RecentConcepts:
    """What the path's features of the next position are made of, of documents that grow: the last n concepts, and the sum
    and the number of all."""

    def __init__(self, num_previous: int) -> None:
        self.num_previous = num_previous
        self._last: Tensor | None = None
        self._sum: Tensor | None = None
        self._count: Tensor | None = None

    def append(self, concepts: Tensor, lengths: Sequence[int]) -> None:
        """:param concepts: The new ones of every document ``[B, T, C]``, of which the first ``lengths`` are real."""
        if self._last is None or self._sum is None or self._count is None:
            self._last = concepts.new_zeros(len(concepts), self.num_previous, concepts.size(-1))
            self._sum = concepts.new_zeros(len(concepts), 1, concepts.size(-1))
            self._count = concepts.new_zeros(len(concepts), 1, 1)
        device = concepts.device
        num_real = torch.tensor(lengths, device=device)
        real = torch.arange(concepts.size(1), device=device) < num_real.unsqueeze(1)
        # The last n of what was kept and what is real of the new.
        behind = num_real.unsqueeze(1) + torch.arange(self.num_previous, device=device)
        rows = torch.arange(len(concepts), device=device).unsqueeze(1)
        self._last = torch.cat([self._last, concepts], dim=1)[rows, behind]
        self._sum = self._sum + (concepts * real.unsqueeze(-1)).sum(dim=1, keepdim=True)
        self._count = self._count + num_real[:, None, None].to(concepts.dtype)

    def features(self) -> Tensor:
        """:returns: ``[B, 1, F]``."""
        assert self._last is not None and self._sum is not None and self._count is not None
        return torch.cat([self._last.flip(1).flatten(1).unsqueeze(1), self._sum / self._count], dim=-1)

    def empty(self) -> Self:
        return type(self)(self.num_previous)

    def select(self, rows: Sequence[int], index: Tensor) -> None:
        self._last, self._sum, self._count = (kept.index_select(0, index) for kept in self._kept())

    def join(self, other: Self) -> None:
        if self._last is None:
            self._last, self._sum, self._count = other._kept()
            return
        self._last, self._sum, self._count = (torch.cat(pair) for pair in zip(self._kept(), other._kept()))

    def _kept(self) -> tuple[Tensor, Tensor, Tensor]:
        assert self._last is not None and self._sum is not None and self._count is not None
        return self._last, self._sum, self._count
