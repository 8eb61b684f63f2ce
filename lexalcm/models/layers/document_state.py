"""What incremental encoding keeps of a batch of documents, and how documents leave and enter the batch.

Shapes: B documents, n new concepts, M model_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from lexalcm.models.layers.attention import CachedLayer, PastCrossAttention, RotaryTable
from lexalcm.models.layers.denoiser_passes import Past
from lexalcm.models.layers.key_value_cache import GrowingRows, KeyValueCache


class Part(Protocol):
    """Something that is kept a row a document."""

    def empty(self) -> Self:
        """One of the same kind without documents."""

    def select(self, rows: Sequence[int], index: Tensor) -> None:
        """Keeps these documents, in this order.  :param index: The same numbers on the device, int64 ``[B]``."""

    def join(self, other: Self) -> None:
        """Adds another batch's documents behind these."""


class CachedTower:
    """The caches of one tower's attentions; a document is equally long in all layers."""

    def __init__(self, num_layers: int) -> None:
        self.rows = GrowingRows()
        self.layers = [KeyValueCache() for _ in range(num_layers)]

    def grow(self, concepts: Tensor) -> tuple[Tensor, list[CachedLayer]]:
        """Makes room for new concepts ``[B, n, C]``: their positions, int64 ``[B, n]``, and what each layer is given."""
        growth = self.rows.grow(*concepts.shape[:2], concepts.device)
        return growth.positions, [(cache, growth) for cache in self.layers]

    def empty(self) -> Self:
        return type(self)(len(self.layers))

    def select(self, rows: Sequence[int], index: Tensor) -> None:
        self.rows.select(rows)
        for cache in self.layers:
            cache.select(index)

    def join(self, other: CachedTower) -> None:
        self.rows.join(other.rows)
        for mine, theirs in zip(self.layers, other.layers):
            mine.join(theirs)


class PastKeys(CachedTower):
    """Cross-attention's keys and values of the past, the zero vector's first: those of concept j stand at place j + 1."""

    def append(
        self,
        attentions: Sequence[PastCrossAttention],
        hidden: Tensor,
        lengths: Sequence[int],
        rotary: Callable[[Tensor, Tensor], RotaryTable | None] | None = None,
    ) -> None:
        """
        :param hidden: ``[B, n, M]``, the contexts of the new concepts.
        :param lengths: How many of the n are real in each row.
        :param rotary: Makes the table of places ``[B, n]`` for contexts, if keys are rotated.
        """
        num_new = hidden.size(1)
        if not self.rows.lengths:
            hidden = F.pad(hidden, (0, 0, 1, 0))
        growth = self.rows.grow(len(hidden), hidden.size(1), hidden.device)
        table = None if rotary is None else rotary(growth.positions, hidden)
        for cache, attention in zip(self.layers, attentions):
            cache.append(*attention.keys_and_values(hidden, table), growth)
        self.rows.shorten([length + hidden.size(1) - num_new for length in lengths], hidden.size(1))

    def seen(self) -> list[Past]:
        """Keys and values ``[B, T, H, E]`` of every layer."""
        return [cache.seen(self.rows.width) for cache in self.layers]

    def last_positions(self, device: torch.device) -> Tensor:
        """The places of the last keys, which are those of the next concepts: int64 ``[B, 1]``."""
        return torch.tensor(self.rows.lengths, device=device).unsqueeze(1) - 1


@dataclass
class DocumentState:
    """A batch of documents that grow. Every field but the tables is a :class:`Part`."""

    tables: Any
    """What depends on the weights alone; all states of one generation share it."""

    def fork(self) -> Self:
        """A state without documents."""
        return replace(self, **{name: part.empty() for name, part in self._parts().items()})

    def select(self, rows: Sequence[int], device: torch.device) -> None:
        """Keeps the documents with these numbers, in this order.

        Their room for keys stays that of the longest document so far.
        """
        index = torch.tensor(rows, device=device)
        for part in self._parts().values():
            part.select(rows, index)

    def join(self, other: Self) -> None:
        """Adds another state's documents behind these."""
        theirs = other._parts()
        for name, part in self._parts().items():
            part.join(theirs[name])

    def _parts(self) -> dict[str, Part]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "tables"}


class LastVectors:
    """One vector a document: the latest."""

    def __init__(self, latest: Tensor | None = None) -> None:
        """:param latest: ``[B, 1, C]``."""
        self.latest = latest

    def replace(self, new: Tensor, lengths: Sequence[int]) -> None:
        """:param new: ``[B, n, C]``, of which the first ``lengths`` of each row are real."""
        last = torch.tensor(lengths, device=new.device) - 1
        self.latest = new[torch.arange(len(new), device=new.device), last].unsqueeze(1)

    def empty(self) -> Self:
        return type(self)()

    def select(self, rows: Sequence[int], index: Tensor) -> None:
        assert self.latest is not None
        self.latest = self.latest.index_select(0, index)

    def join(self, other: Self) -> None:
        assert other.latest is not None
        self.latest = other.latest if self.latest is None else torch.cat([self.latest, other.latest])
