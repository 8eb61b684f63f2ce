"""A batch of documents: concepts, where they came from, and which of them are targets.

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one), C their dimensions, W windows (documents, or
pieces of long ones).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lexalcm.errors import DataError
from lexalcm.layout import DocumentLayout

_SERIAL_COMPONENTS: Final = (1 << 15) - 1


@dataclass(frozen=True)
class WindowIds:
    """Where each window of a batch stands, on the host."""

    files: Sequence[str]
    """``source:relative path`` of every file of the dataset."""

    file: np.ndarray
    """int64 ``[W]`` index into ``files``."""

    row: np.ndarray
    """int64 ``[W]`` row within the file, from 0."""

    window: np.ndarray
    """int64 ``[W]`` piece of the document, from 0."""

    def names(self) -> list[str]:
        """``source:file:row:window`` for each."""
        return [f"{self.files[f]}:{r}:{w}" for f, r, w in zip(self.file, self.row, self.window)]


@dataclass
class ConceptBatch:
    """What a data reader yields."""

    concepts: Tensor
    """Raw embeddings ``[*P, C]``, float32 or float16; zeros at padding."""

    layout: DocumentLayout

    target_mask: Tensor
    """bool ``[*P]``: False at padding, and at what is context alone: a prefix, a document's source, and the first
    concepts where a target must have some before it."""

    num_targets: int
    """True entries of ``target_mask``, known to the host."""

    ids: WindowIds | None = None

    num_step_targets: int = 0
    """Targets of all micro-batches of this rank's step."""

    num_step_batches: int = 1
    """Micro-batches of the step."""

    skipped: Mapping[str, int] = field(default_factory=dict)
    """Bad documents among those that were first read for this batch, by kind."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> None:
        """Moves the batch in place."""
        self.concepts = self.concepts.to(device, non_blocking=non_blocking)
        self.target_mask = self.target_mask.to(device, non_blocking=non_blocking)
        self.layout.to(device, non_blocking=non_blocking)

    def pin_memory(self) -> None:
        """Moves the batch to page-locked memory in place, so that :meth:`to` can copy asynchronously."""
        self.concepts = self.concepts.pin_memory()
        self.target_mask = self.target_mask.pin_memory()
        self.layout.pin_memory()

    def __repr__(self) -> str:
        rows = "" if self.ids is None else f", rows {', '.join(self.ids.names()[:8])}"
        return f"ConceptBatch({self.layout}{rows})"


@dataclass(frozen=True)
class Affixes:
    """Vectors ``[C]`` put before and after documents; where these have targets, before and after their sources, and
    behind their targets."""

    prefix: np.ndarray | None = None
    suffix: np.ndarray | None = None
    target_suffix: np.ndarray | None = None


@dataclass(frozen=True)
class Piece:
    """Windows that lie in the same array."""

    values: np.ndarray
    """``[V, C]``."""

    starts: np.ndarray
    """int64 ``[W]``: the first vector of each window."""

    lengths: np.ndarray
    """int64 ``[W]``."""

    is_first: np.ndarray
    """bool ``[W]``: the window begins its document, so that a prefix belongs before it."""

    is_last: np.ndarray
    """bool ``[W]``: it ends its document, so that a suffix belongs behind it."""

    num_source: np.ndarray | None = None
    """int64 ``[W]``, where documents have targets: how many vectors at the start are the source. Windows are whole
    documents then."""


def collate(
    pieces: Sequence[Piece],
    *,
    affixes: Affixes = Affixes(),
    pack: bool = True,
    dtype: str = "float32",
    min_context_len: int = 0,
    ids: WindowIds | None = None,
    pin_memory: bool = False,
) -> ConceptBatch:
    """Gathers windows, piece after piece, into a batch with one copy.

    :param min_context_len: Concepts that a target must have before it in its window; with sources, 1 at most.
    :param ids: In the order of the windows.
    :param pin_memory: Gather into page-locked memory, so that :meth:`ConceptBatch.to` can copy asynchronously.
    :raises DataError: A component is too large for float16.
    """
    supervised = pieces[0].num_source is not None
    if supervised:
        # Sources and targets in turn: each pair lies together, and is one document in the layout.
        pieces = [_halves(p) for p in pieces]
    behind = [affixes.suffix, affixes.target_suffix] if supervised else [affixes.suffix]
    before = np.concatenate([p.is_first for p in pieces]).astype(np.int64) * (affixes.prefix is not None)
    after = np.concatenate([p.is_last for p in pieces]).astype(np.int64)
    for turn, suffix in enumerate(behind):
        after[turn :: len(behind)] *= suffix is not None
    sizes = np.concatenate([p.lengths for p in pieces]) + before + after
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    gathered = _allocate(total, pieces[0].values.shape[1], dtype, pin_memory)
    window = row = 0
    for piece in pieces:
        stop = window + len(piece.starts)
        piece_sizes = sizes[window:stop]
        size = int(piece_sizes.sum())
        # Where windows begin in the piece, less where they begin in the batch: added to a place, it gives its vector.
        shift = piece.starts - before[window:stop] - (ends[window:stop] - piece_sizes - row)
        source = np.arange(size) + np.repeat(shift, piece_sizes)
        _gather(piece.values, source, gathered[row : row + size])
        window, row = stop, row + size
    at_prefix = (ends - sizes)[before == 1]
    if affixes.prefix is not None:
        gathered[at_prefix] = torch.from_numpy(affixes.prefix).to(gathered.dtype)
    for turn, suffix in enumerate(behind):
        if suffix is not None:
            at_suffix = (ends - 1)[turn :: len(behind)][after[turn :: len(behind)] == 1]
            gathered[at_suffix] = torch.from_numpy(suffix).to(gathered.dtype)
    given = [*(p.values for p in pieces), *(a for a in (affixes.prefix, *behind) if a is not None)]
    if dtype == "float16" and any(x.dtype != np.float16 for x in given) and not gathered.isfinite().all():
        raise DataError("A vector has a component above 65,504, which float16 cannot hold. Set `dtype: float32`.")
    targets = torch.ones(total, dtype=torch.bool)
    targets[at_prefix] = False
    layout = _layout_of_pairs(sizes, targets, pack) if supervised else DocumentLayout(sizes.tolist(), packed=pack)
    if not pack:
        real = layout.real
        padded = torch.zeros(*real.shape, gathered.size(-1), dtype=gathered.dtype)
        mask = torch.zeros(real.shape, dtype=torch.bool)
        padded[real], mask[real] = gathered, targets
        gathered, targets = padded, mask
    if min_context_len:
        targets &= layout.positions >= (min(min_context_len, 1) if supervised else min_context_len)
    num_targets = int(np.count_nonzero(targets.numpy()))
    batch = ConceptBatch(gathered, layout, targets, num_targets, ids, num_step_targets=num_targets)
    if pin_memory:
        batch.pin_memory()
    return batch


def _halves(piece: Piece) -> Piece:
    """The sources and targets of a piece as windows of their own, ``[2 W]``, in turns."""
    assert piece.num_source is not None
    starts = np.stack([piece.starts, piece.starts + piece.num_source], axis=1).reshape(-1)
    lengths = np.stack([piece.num_source, piece.lengths - piece.num_source], axis=1).reshape(-1)
    is_source = np.arange(len(starts)) % 2 == 0
    return Piece(piece.values, starts, lengths, is_first=is_source, is_last=np.ones_like(is_source))


def _layout_of_pairs(sizes: np.ndarray, targets: Tensor, pack: bool) -> DocumentLayout:
    """Joins windows two by two, and takes the first of each out of ``targets`` in place."""
    is_source = np.arange(len(sizes)) % 2 == 0
    targets[torch.from_numpy(np.repeat(is_source, sizes))] = False
    return DocumentLayout((sizes[0::2] + sizes[1::2]).tolist(), packed=pack, source_lengths=sizes[0::2].tolist())


def collate_documents(
    documents: Sequence[np.ndarray],
    *,
    source_lengths: Sequence[int] | None = None,
    pack: bool = True,
    dtype: str = "float32",
    min_context_len: int = 0,
) -> ConceptBatch:
    """Makes a batch of whole documents ``[T, C]`` without affixes.

    :param source_lengths: How many concepts at the start of each are its source, where documents have targets.
    """
    lengths = np.asarray([len(d) for d in documents], dtype=np.int64)
    whole = np.ones(len(documents), dtype=bool)
    num_source = None if source_lengths is None else np.asarray(source_lengths, dtype=np.int64)
    piece = Piece(np.concatenate(documents), np.cumsum(lengths) - lengths, lengths, whole, whole, num_source)
    return collate([piece], pack=pack, dtype=dtype, min_context_len=min_context_len)


def dummy_batch(concept_dim: int, *, pack: bool, dtype: str) -> ConceptBatch:
    """One concept that is no target: keeps a rank without data in step with the others, and weighs nothing."""
    batch = collate_documents([np.ones((1, concept_dim), np.float32)], pack=pack, dtype=dtype)
    batch.target_mask = torch.zeros_like(batch.target_mask)
    batch.num_targets = batch.num_step_targets = 0
    return batch


def _allocate(rows: int, width: int, dtype: str, pin_memory: bool) -> Tensor:
    if pin_memory:
        return torch.empty(rows, width, dtype=getattr(torch, dtype), pin_memory=True)
    # numpy asks for huge pages, which makes the first touch of a large array several times cheaper.
    return torch.from_numpy(np.empty((rows, width), np.dtype(dtype)))


def _gather(values: np.ndarray, rows: np.ndarray, out: Tensor) -> None:
    """Copies ``values[rows]`` to ``out``, converted; rows out of bounds (places of affixes) give any row."""
    # Small blocks stay in the processor's cache between gathering and converting, and below the size at which torch
    # would take more threads: those belong to the model.
    step = max(1, _SERIAL_COMPONENTS // values.shape[1])
    block = torch.from_numpy(np.empty((min(step, len(rows)), values.shape[1]), values.dtype))
    buffer = block.numpy()
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        np.take(values, part, axis=0, out=buffer[: len(part)], mode="clip")
        out[start : start + len(part)].copy_(block[: len(part)])
