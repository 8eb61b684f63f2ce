"""Keys and values of documents that grow concept by concept, each row at its own length.

Shapes: B rows, n new positions a row, T keys of the longest row, H heads, E head dim.

For inference only: new keys are written into room that is there already, which autograd would not survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

_ROOM: Final = 64
"""Keys are given room in multiples of this, so that most sentences copy nothing."""


@dataclass(frozen=True)
class Growth:
    """Where the new positions of every row go, and what they may look at; the same for all layers of a tower."""

    start: int | None
    """Where they start, if it is the same for all rows."""

    positions: Tensor
    """int64 ``[B, n]``: their places in their documents."""

    width: int
    """T, they included."""

    mask: Tensor | None
    """bool ``[n, T]`` or ``[B, 1, n, T]``, True where a new position may look: at its own past and itself. ``None`` when
    it may look at every key."""


class GrowingRows:
    """The lengths of the documents in a batch's rows, on the host."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def grow(self, num_rows: int, num_new: int, device: torch.device) -> Growth:
        """Adds ``num_new`` positions to every row. The first call decides how many rows there are.

        Where some are padding, :meth:`shorten` takes them back once their keys are there: they stand behind a row's end,
        where nothing looks, and the next positions are written over them.
        """
        if not self.lengths:
            self.lengths = [0] * num_rows
        if num_rows != len(self.lengths):
            raise ValueError(f"There are {len(self.lengths)} documents, but concepts of {num_rows} are given.")
        starts = self.lengths
        self.lengths = [start + num_new for start in starts]
        width = max(self.lengths)
        if len(set(starts)) == 1:
            start = starts[0]
            positions = torch.arange(start, width, device=device).expand(num_rows, num_new)
            mask = None
            if num_new > 1:
                mask = torch.ones(num_new, width, dtype=torch.bool, device=device).tril(start)
            return Growth(start, positions, width, mask)
        positions = torch.tensor([range(s, s + num_new) for s in starts], device=device)
        mask = torch.arange(width, device=device) <= positions[:, None, :, None]
        return Growth(None, positions, width, mask)

    @property
    def width(self) -> int:
        """The longest row, 0 when there is none."""
        return max(self.lengths, default=0)

    def mask(self, device: torch.device) -> Tensor | None:
        """bool ``[B, 1, 1, T]`` for a query that sees the whole of its row; ``None`` when all rows are equally long."""
        if len(set(self.lengths)) == 1:
            return None
        lengths = torch.tensor(self.lengths, device=device)
        return (torch.arange(self.width, device=device) < lengths.unsqueeze(1))[:, None, None]

    def shorten(self, lengths: Sequence[int], num_new: int) -> None:
        """Of the last ``num_new`` positions of each row, only the first ``lengths`` are real."""
        self.lengths = [total - num_new + length for total, length in zip(self.lengths, lengths)]

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows, in this order."""
        self.lengths = [self.lengths[row] for row in rows]

    def join(self, other: GrowingRows) -> None:
        """Adds another batch's rows behind these."""
        self.lengths = [*self.lengths, *other.lengths]


class KeyValueCache:
    """Keys and values of the positions seen so far, one object an attention layer."""

    def __init__(self) -> None:
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def append(self, k: Tensor, v: Tensor, growth: Growth) -> tuple[Tensor, Tensor]:
        """Adds new positions and returns all keys and values, views ``[B, T, H, E]``; behind a shorter row's end stands
        what ``growth.mask`` hides.

        :param k: ``[B, n, H, E]``, as ``v``.
        """
        self._k, self._v = (_enlarged(kept, new, growth.width) for kept, new in ((self._k, k), (self._v, v)))
        for kept, new in ((self._k, k), (self._v, v)):
            by_position = kept.transpose(1, 2)
            if growth.start is not None:
                by_position[:, growth.start : growth.width] = new
            else:
                rows = torch.arange(len(new), device=new.device).unsqueeze(1)
                by_position[rows, growth.positions] = new
        return self.seen(growth.width)

    def seen(self, width: int) -> tuple[Tensor, Tensor]:
        """All keys and values, views ``[B, width, H, E]``."""
        assert self._k is not None and self._v is not None
        return self._k[:, :, :width].transpose(1, 2), self._v[:, :, :width].transpose(1, 2)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order.  :param rows: int64, on the device."""
        assert self._k is not None and self._v is not None
        self._k, self._v = self._k.index_select(0, rows), self._v.index_select(0, rows)

    def join(self, other: KeyValueCache) -> None:
        """Adds another batch's rows behind these."""
        if self._k is None or self._v is None:
            self._k, self._v = other._k, other._v
            return
        assert other._k is not None and other._v is not None
        room = max(self._k.size(2), other._k.size(2))
        self._k, self._v = (
            torch.cat([_padded(mine, room), _padded(theirs, room)])
            for mine, theirs in ((self._k, other._k), (self._v, other._v))
        )

    @property
    def num_bytes(self) -> int:
        return sum(kept.nbytes for kept in (self._k, self._v) if kept is not None)


def with_room(width: int) -> int:
    """How many keys there is room for when ``width`` are needed."""
    return -(-width // _ROOM) * _ROOM


def _enlarged(kept: Tensor | None, new: Tensor, width: int) -> Tensor:
    """``[B, H, room, E]``: heads first, so that a head's keys lie side by side."""
    if kept is None:
        batch, _, heads, dim = new.shape
        return new.new_zeros(batch, heads, with_room(width), dim)
    return kept if kept.size(2) >= width else _padded(kept, with_room(width))


def _padded(kept: Tensor, room: int) -> Tensor:
    return F.pad(kept, (0, 0, 0, room - kept.size(2)))
