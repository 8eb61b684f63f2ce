"""How the documents of one batch lie in its tensors: the one thing that data and models share.

Shapes: N concepts of all documents, Q of them to predict, B documents, T concepts of the longest, K noise draws, R rows of
a bucket.

fairseq2's ``BatchLayout`` refuses documents of length 0, cannot be moved between devices, and on CUDA launches a kernel
a document while it is built. This one is built on the host, in the reader's thread, and moved in a few asynchronous
copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

_MAX_BUCKETS = 6

_PAIRS_PER_BUCKET = 2048
"""Query-key pairs that take as long as the calls a bucket adds."""


class DocumentLayout:
    """The lengths of a batch's documents, and the index tensors that attention needs.

    A *packed* batch is ``[N, ...]`` with the documents one after the other; a *padded* one is ``[B, T, ...]``. Linear
    layers run on either form as it is; only attention and shifts ask the layout.
    """

    lengths: tuple[int, ...]
    """The number of concepts of each document, on the host."""

    packed: bool

    positions: Tensor
    """Position of each concept in its document, int64, ``[N]`` or ``[B, T]``."""

    source_lengths: tuple[int, ...] | None
    """How many concepts at each document's start are context alone (the prompt of supervised data), on the host; ``None``
    when every concept is predicted."""

    queries: Tensor | None
    """Where the denoiser runs: int64 ``[Q]`` indices into the packed batch; ``None`` when it runs everywhere."""

    query_positions: Tensor
    """Position of each query in its document, counted from the document's first query, int64 ``[Q]``, or ``[N]``, or
    ``[B, T]``."""

    past: DocumentLayout | None
    """The layout of a packed batch without each document's last concept, which is in no position's past; see
    :meth:`drop_last`. ``None`` when nothing would be left, and for padded batches."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        packed: bool = True,
        width: int | None = None,
        with_past: bool = True,
        source_lengths: Sequence[int] | None = None,
    ) -> None:
        """
        :param lengths: Concepts a document; in packed form documents of length 0 are allowed and take no room.
        :param width: T of a padded batch; by default the longest document's length.
        :param with_past: Build :attr:`past`.
        :param source_lengths: Concepts at each document's start that are not predicted; packed form only.
        """
        self.lengths = tuple(int(n) for n in lengths)
        self.packed = packed
        if any(n < 0 for n in self.lengths):
            raise ValueError(f"lengths must not be negative, but are {self.lengths}.")
        longest = max(self.lengths, default=0)
        self.width = longest if width is None else width
        if self.width < longest:
            raise ValueError(f"width must be at least the longest document's length ({longest}), but is {self.width}.")
        self.past = self._kept = self._later = self.queries = self.source_lengths = None
        if packed:
            self._index_packed()
            if with_past and longest > 1:
                self._index_past()
        else:
            self.positions = torch.arange(self.width).expand(len(self.lengths), self.width).contiguous()
            self._buckets: list[tuple[int, int]] = [(len(self.lengths), self.width)]
            self._slots: Tensor | None = None
            self._inverse: Tensor | None = None
        self.query_positions = self.positions
        if source_lengths is not None:
            self._index_queries(tuple(int(n) for n in source_lengths))

    def _index_packed(self) -> None:
        lengths = np.asarray(self.lengths, dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)[:-1]]) if len(lengths) else lengths
        total = int(lengths.sum())
        self.positions = torch.from_numpy(np.arange(total, dtype=np.int64) - np.repeat(starts, lengths))
        if total and (lengths == lengths[0]).all():
            self._buckets, self._slots, self._inverse = [(len(lengths), int(lengths[0]))], None, None
            return
        self._buckets, slots = [], []
        inverse = np.empty(total, np.int64)
        offset = 0
        for rows in _bucket_by_length(lengths):
            width = int(lengths[rows[0]])
            column = np.arange(width)[None, :]
            real = column < lengths[rows][:, None]
            # A padding slot reads its document's last concept: any finite row will do, since causal attention never
            # lets a real query see the slots behind it and the slot's own output is not read back.
            index = starts[rows][:, None] + np.minimum(column, lengths[rows][:, None] - 1)
            inverse[index[real]] = offset + np.flatnonzero(real)
            offset += index.size
            slots.append(index.reshape(-1))
            self._buckets.append((len(rows), width))
        self._slots = torch.from_numpy(np.concatenate(slots) if slots else inverse)
        self._inverse = torch.from_numpy(inverse)

    def _index_past(self) -> None:
        self.past = DocumentLayout([max(n - 1, 0) for n in self.lengths], with_past=False)
        self._later = self.positions.nonzero().flatten()
        self._kept = self._later - 1

    def _index_queries(self, source_lengths: tuple[int, ...]) -> None:
        if not self.packed:
            raise ValueError("Documents with sources must be packed.")
        if len(source_lengths) != len(self.lengths) or any(not 0 <= s <= n for s, n in zip(source_lengths, self.lengths)):
            raise ValueError(f"source_lengths must lie between 0 and the lengths {self.lengths}, but are {source_lengths}.")
        self.source_lengths = source_lengths
        from_first_query = self.positions - torch.from_numpy(np.repeat(source_lengths, self.lengths))
        self.queries = (from_first_query >= 0).nonzero().flatten()
        self.query_positions = from_first_query[self.queries]

    @property
    def num_documents(self) -> int:
        return len(self.lengths)

    @property
    def num_concepts(self) -> int:
        """Real concepts, padding not counted."""
        return sum(self.lengths)

    @property
    def num_slots(self) -> int:
        """Positions that linear layers compute: real concepts, and in padded form the padding too."""
        return self.num_concepts if self.packed else len(self.lengths) * self.width

    @property
    def target_lengths(self) -> tuple[int, ...]:
        """Queries of each document, on the host."""
        if self.source_lengths is None:
            return self.lengths
        return tuple(n - s for n, s in zip(self.lengths, self.source_lengths))

    @property
    def num_queries(self) -> int:
        """Positions that the denoiser computes."""
        return self.num_slots if self.source_lengths is None else sum(self.target_lengths)

    @property
    def context_len(self) -> int:
        """The length of a concept's document, the mean over all concepts, at least 1."""
        return max(1, round(sum(n * n for n in self.lengths) / max(self.num_concepts, 1)))

    @property
    def device(self) -> torch.device:
        return self.positions.device

    @property
    def real(self) -> Tensor:
        """True at real concepts, bool, ``[N]`` or ``[B, T]``."""
        if self.packed:
            return torch.ones_like(self.positions, dtype=torch.bool)
        lengths = torch.tensor(self.lengths, device=self.device)
        return self.positions < lengths[:, None]

    def rows(self, x: Tensor, *, dim: int = 0) -> list[Tensor]:
        """Rearranges a batch tensor into dense rows of documents, padded on the right, for attention.

        :param x: ``[*lead, N, ...]``, or ``[*lead, B, T, ...]`` for a padded layout, where ``lead`` has ``dim``
            dimensions.
        :returns: A list of ``[*lead, R, T_bucket, ...]``: documents of like length share a bucket. What stands in padding
            slots must not count, and no gradient flows back from there.
        """
        if not self.packed:
            return [x]
        lead, rest = x.shape[:dim], x.shape[dim + 1 :]
        if self._slots is not None:
            # One gather for all buckets: its backward writes the whole gradient once, not once a bucket.
            x = _ToSlots.apply(x, dim, self._slots, self._inverse)
        parts = x.split([num_rows * width for num_rows, width in self._buckets], dim)
        return [
            part.reshape(*lead, num_rows, width, *rest) for part, (num_rows, width) in zip(parts, self._buckets)
        ]

    def unrows(self, rows: Sequence[Tensor], *, dim: int = 0) -> Tensor:
        """The inverse of :meth:`rows`; what stands in padding slots is dropped."""
        if not self.packed:
            return rows[0]
        flat = [r.reshape(*r.shape[:dim], -1, *r.shape[dim + 2 :]) for r in rows]
        if self._inverse is None:
            return flat[0]
        return _FromSlots.apply(flat[0] if len(flat) == 1 else torch.cat(flat, dim), dim, self._inverse)

    def shift(self, x: Tensor) -> Tensor:
        """Moves every document one position to the right and puts a zero vector first; its last concept falls out.

        :param x: ``[N, D]`` or ``[B, T, D]``.
        """
        moved = torch.roll(x, 1, dims=-2)
        return moved.masked_fill((self.positions == 0).unsqueeze(-1), 0.0)

    def drop_last(self, x: Tensor) -> Tensor:
        """Leaves out each document's last concept: ``[N, D]`` to what :attr:`past` describes, ``[N - B, D]``."""
        return x.index_select(0, self._kept)

    def delay(self, x: Tensor) -> Tensor:
        """The other half of :meth:`shift`: ``delay(drop_last(x))`` equals ``shift(x)``.

        :param x: ``[N - B, D]``.  :returns: ``[N, D]``, a zero vector first in each document.
        """
        return x.new_zeros(len(self.positions), x.size(-1)).index_copy(0, self._later, x)

    def at_queries(self, x: Tensor, *, dim: int = 0) -> Tensor:
        """Picks the positions where the denoiser runs: ``[*P, ...]`` to ``[Q, ...]``, or unchanged if it runs everywhere;
        ``dim`` dimensions stand before."""
        return x if self.queries is None else _FromSlots.apply(x, dim, self.queries)

    def from_queries(self, x: Tensor, *, dim: int = 0) -> Tensor:
        """The inverse of :meth:`at_queries`, with zeros at the other positions."""
        if self.queries is None:
            return x
        return x.new_zeros(*x.shape[:dim], self.num_slots, *x.shape[dim + 1 :]).index_copy(dim, self.queries, x)

    def query_documents(self) -> Tensor:
        """Which document each query of a packed batch stands in, int64 ``[Q]``."""
        index = torch.from_numpy(np.repeat(np.arange(len(self.lengths)), self.target_lengths))
        return index.to(self.device, non_blocking=True)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> None:
        """Moves the index tensors in place."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=non_blocking)

        self._apply(move)

    def pin_memory(self) -> None:
        """Moves the index tensors to page-locked memory in place, so that :meth:`to` can copy asynchronously."""
        self._apply(lambda x: None if x is None else x.pin_memory())

    def _apply(self, function: Callable[[Tensor | None], Tensor | None]) -> None:
        everywhere = self.query_positions is self.positions
        self.positions = function(self.positions)
        self.query_positions = self.positions if everywhere else function(self.query_positions)
        self.queries = function(self.queries)
        self._slots = function(self._slots)
        self._inverse = function(self._inverse)
        self._kept = function(self._kept)
        self._later = function(self._later)
        if self.past is not None:
            self.past._apply(function)

    def __repr__(self) -> str:
        form = "packed" if self.packed else "padded"
        return f"DocumentLayout({form}, {self.num_documents} documents, {self.num_concepts} concepts)"


class _ToSlots(Function):
    """``x[slots]``. Every concept has one slot of its own, so that its gradient is gathered from there: torch would add up
    all slots of a concept, one by one, in the type of the gradient and in any order."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, dim: int, slots: Tensor, inverse: Tensor) -> Tensor:
        ctx.dim = dim
        ctx.save_for_backward(inverse)
        return x.index_select(dim, slots)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return grad.index_select(ctx.dim, inverse), None, None, None


class _FromSlots(Function):
    """``x[inverse]``, whose gradient is copied to the slots that were read; the others get zero."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, dim: int, inverse: Tensor) -> Tensor:
        ctx.dim, ctx.num_slots = dim, x.size(dim)
        ctx.save_for_backward(inverse)
        return x.index_select(dim, inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        shape = (*grad.shape[: ctx.dim], ctx.num_slots, *grad.shape[ctx.dim + 1 :])
        return grad.new_zeros(shape).index_copy_(ctx.dim, inverse, grad), None, None


def _bucket_by_length(lengths: np.ndarray) -> list[np.ndarray]:
    """Groups document indices, longest first, into the buckets that cost attention least."""
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    if not len(order):
        return []
    negated, counts = np.unique(-lengths[order], return_counts=True)
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    cuts = _cheapest_cuts(-negated, bounds)
    return [order[bounds[start] : bounds[end]] for start, end in zip(cuts, cuts[1:])]


def _cheapest_cuts(widths: np.ndarray, bounds: np.ndarray) -> list[int]:
    """Where to cut the distinct lengths ``widths`` (descending) into buckets.

    ``bounds`` counts the documents before each. A bucket costs its rows times the square of its longest, and a constant.
    Dynamic programming over the last bucket.
    """
    count = len(widths)
    # cost[i, j] of the bucket of the lengths i..j
    rows = bounds[None, 1:] - bounds[:-1, None]
    cost = np.where(rows > 0, rows * widths[:, None].astype(np.float64) ** 2 + _PAIRS_PER_BUCKET, np.inf)
    best, starts = cost[0], [np.zeros(count, np.int64)]
    for _ in range(min(_MAX_BUCKETS, count) - 1):
        # Either the last bucket starts at i, after the best of what stands before, or one bucket fewer will do.
        total = cost + np.concatenate([np.zeros(1), best[:-1]])[:, None]
        starts.append(total.argmin(axis=0))
        best = total.min(axis=0)
    cuts = [count]
    for start in reversed(starts):
        if cuts[0] > 0:
            cuts.insert(0, int(start[cuts[0] - 1]))
    return cuts
