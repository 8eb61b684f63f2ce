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
    """bool ``[*P]``: False at padding and at a prefix concept, which is context alone."""

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
    """Vectors ``[C]`` put before and after documents."""

    prefix: np.ndarray | None = None
    suffix: np.ndarray | None = None


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


def collate(
    pieces: Sequence[Piece],
    *,
    affixes: Affixes = Affixes(),
    pack: bool = True,
    dtype: str = "float32",
    ids: WindowIds | None = None,
    pin_memory: bool = False,
) -> ConceptBatch:
    """Gathers windows, piece after piece, into a batch with one copy.

    :param ids: In the order of the windows.
    :param pin_memory: Gather into page-locked memory, so that :meth:`ConceptBatch.to` can copy asynchronously.
    :raises DataError: A component is too large for float16.
    """
    before = np.concatenate([p.is_first for p in pieces]).astype(np.int64) * (affixes.prefix is not None)
    after = np.concatenate([p.is_last for p in pieces]).astype(np.int64) * (affixes.suffix is not None)
    sizes = np.concatenate([p.lengths for p in pieces]) + before + after
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    at_prefix, at_suffix = (ends - sizes)[before == 1], (ends - 1)[after == 1]
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
    if affixes.prefix is not None:
        gathered[at_prefix] = torch.from_numpy(affixes.prefix).to(gathered.dtype)
    if affixes.suffix is not None:
        gathered[at_suffix] = torch.from_numpy(affixes.suffix).to(gathered.dtype)
    given = [*(p.values for p in pieces), *(a for a in (affixes.prefix, affixes.suffix) if a is not None)]
    if dtype == "float16" and any(x.dtype != np.float16 for x in given) and not gathered.isfinite().all():
        raise DataError("A vector has a component above 65,504, which float16 cannot hold. Set `dtype: float32`.")
    targets = torch.ones(total, dtype=torch.bool)
    targets[at_prefix] = False
    layout = DocumentLayout(sizes.tolist(), packed=pack)
    if not pack:
        real = layout.real
        padded = torch.zeros(*real.shape, gathered.size(-1), dtype=gathered.dtype)
        mask = torch.zeros(real.shape, dtype=torch.bool)
        padded[real], mask[real] = gathered, targets
        gathered, targets = padded, mask
    num_targets = total - len(at_prefix)
    batch = ConceptBatch(gathered, layout, targets, num_targets, ids, num_step_targets=num_targets)
    if pin_memory:
        batch.pin_memory()
    return batch


def collate_documents(documents: Sequence[np.ndarray], *, pack: bool = True, dtype: str = "float32") -> ConceptBatch:
    """Makes a batch of whole documents ``[T, C]`` without affixes."""
    lengths = np.asarray([len(d) for d in documents], dtype=np.int64)
    whole = np.ones(len(documents), dtype=bool)
    piece = Piece(np.concatenate(documents), np.cumsum(lengths) - lengths, lengths, whole, whole)
    return collate([piece], pack=pack, dtype=dtype)


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
