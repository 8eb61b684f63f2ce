"""A batch of documents: concepts, where they came from, and which of them are targets.

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one), C their dimensions, W windows (documents, or
pieces of long ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lexalcm.errors import DataError
from lexalcm.layout import DocumentLayout


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

    num_step_targets: int = field(default=0)
    """Targets of all micro-batches of this rank's step."""

    num_step_batches: int = 1
    """Micro-batches of the step."""

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


def collate(
    values: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    *,
    is_first: np.ndarray,
    is_last: np.ndarray,
    affixes: Affixes = Affixes(),
    pack: bool = True,
    dtype: str = "float32",
    ids: WindowIds | None = None,
) -> ConceptBatch:
    """Gathers windows into a batch with one copy.

    :param values: ``[V, C]`` vectors that windows point into.
    :param starts: int64 ``[W]``.
    :param lengths: int64 ``[W]``.
    :param is_first: bool ``[W]``: the window begins its document, so that a prefix belongs before it.
    :param is_last: bool ``[W]``: it ends its document, so that a suffix belongs behind it.
    """
    before = is_first.astype(np.int64) if affixes.prefix is not None else np.zeros_like(lengths)
    after = is_last.astype(np.int64) if affixes.suffix is not None else np.zeros_like(lengths)
    sizes = lengths + before + after
    total = int(sizes.sum())
    offsets = np.cumsum(sizes) - sizes
    position = np.arange(total) - np.repeat(offsets, sizes)
    source = np.repeat(starts - before, sizes) + position
    at_prefix = (position == 0) & (np.repeat(before, sizes) == 1)
    at_suffix = (position == np.repeat(sizes - 1, sizes)) & (np.repeat(after, sizes) == 1)
    source[at_prefix | at_suffix] = 0
    gathered = _cast(np.take(values, source, axis=0), dtype)
    if affixes.prefix is not None:
        gathered[at_prefix] = affixes.prefix
    if affixes.suffix is not None:
        gathered[at_suffix] = affixes.suffix
    layout = DocumentLayout(sizes.tolist(), packed=pack)
    concepts, targets = torch.from_numpy(gathered), torch.from_numpy(~at_prefix)
    if not pack:
        real = layout.real
        padded = torch.zeros(*real.shape, concepts.size(-1), dtype=concepts.dtype)
        mask = torch.zeros(real.shape, dtype=torch.bool)
        padded[real], mask[real] = concepts, targets
        concepts, targets = padded, mask
    num_targets = total - int(at_prefix.sum())
    return ConceptBatch(concepts, layout, targets, num_targets, ids, num_step_targets=num_targets)


def collate_documents(documents: Sequence[np.ndarray], *, pack: bool = True, dtype: str = "float32") -> ConceptBatch:
    """Makes a batch of whole documents ``[T, C]`` without affixes."""
    lengths = np.asarray([len(d) for d in documents], dtype=np.int64)
    whole = np.ones(len(documents), dtype=bool)
    return collate(
        np.concatenate(documents), np.cumsum(lengths) - lengths, lengths, is_first=whole, is_last=whole, pack=pack, dtype=dtype
    )


def dummy_batch(concept_dim: int, *, pack: bool, dtype: str) -> ConceptBatch:
    """One concept that is no target: keeps a rank without data in step with the others, and weighs nothing."""
    batch = collate_documents([np.ones((1, concept_dim), np.float32)], pack=pack, dtype=dtype)
    batch.target_mask = torch.zeros_like(batch.target_mask)
    batch.num_targets = batch.num_step_targets = 0
    return batch


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "float16" and values.dtype != np.float16:
        with np.errstate(over="ignore"):
            cast = values.astype(np.float16)
        if not np.isfinite(cast).all():
            raise DataError("A vector has a component above 65,504, which float16 cannot hold. Set `dtype: float32`.")
        return cast
    if values.dtype == np.float16 and dtype == "float32":
        return torch.from_numpy(values).float().numpy()  # several times faster than numpy's own conversion
    return values.astype(np.dtype(dtype), copy=False)
