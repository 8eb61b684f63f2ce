"""Predictions of every position from its true history, by any two-tower model.

Shapes: T concepts of a document, N concepts of a packed batch, C dimensions, S samples.

Noise comes from generators seeded by the user's seed, the document's index and the number of the sample, so that a
prediction depends neither on how documents are batched nor on how many samples are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexalcm.diffusion.samplers import Sampler
from lexalcm.evaluation.batches import packed
from lexalcm.generation.draw import draw_concepts
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel


def one_pass(
    model: TwoTowerModel,
    documents: Iterable[np.ndarray],
    *,
    device: torch.device | str | None = None,
    concepts_per_batch: int = 8192,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Predicts in one call of the denoiser, from pure noise, without guidance.

    :param documents: ``[T, C]`` as stored, any float type, cut as in the protocol.
    :param device: Where the model is; by default where its first parameter is.
    :param concepts_per_batch: Bound of what is encoded at once; a longer document stands alone.
    :returns: For each document float32 ``[T - 1, C]`` on the scale of the stored embeddings; row t - 1 is concept t.
    """
    for first, layout, cache in _encoded(model, documents, device, concepts_per_batch):
        noise = _Noise(seed, first, layout, model.concept_dim, sample=0).draw()
        with _inference(model):
            clean = model.denoise_step(noise, model.schedule.last_timestep, cache)
            raw = model.denormalize(clean)
        yield from _by_document(raw, layout)


def samples(
    model: TwoTowerModel,
    documents: Iterable[np.ndarray],
    sampler: Sampler,
    *,
    num_samples: int = 1,
    device: torch.device | str | None = None,
    concepts_per_batch: int = 8192,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Draws samples of every position, each from its true history; parameters as in :func:`one_pass`.

    One sample after the other, so that memory does not grow with S; the context is encoded once for all of them.

    :raises ConfigError: ``sampler`` does not go with the model's schedule.
    :returns: For each document float32 ``[S, T - 1, C]`` on the scale of the stored embeddings.
    """
    for first, layout, cache in _encoded(model, documents, device, concepts_per_batch):
        drawn = []
        for number in range(num_samples):
            noise = _Noise(seed, first, layout, model.concept_dim, sample=number)
            with _inference(model):
                clean = draw_concepts(model, cache, noise.draw(), sampler, variance_noise=lambda number: noise.draw())
                drawn.append(_by_document(model.denormalize(clean), layout))
        for per_sample in zip(*drawn):
            yield np.stack(per_sample)


def _encoded(
    model: TwoTowerModel, documents: Iterable[np.ndarray], device: torch.device | str | None, concepts_per_batch: int
) -> Iterator[tuple[int, DocumentLayout, Any]]:
    """Yields, batch by batch: the index of the first document, the layout and the denoiser's cache."""
    device = _device_of(model) if device is None else torch.device(device)
    for first, batch in packed(documents, concepts_per_batch=concepts_per_batch):
        layout = DocumentLayout([len(d) for d in batch])
        layout.to(device)
        with _inference(model):
            concepts = model.normalize(torch.from_numpy(np.concatenate(batch)).to(device))
            cache = model.denoise_cache(model.encode(concepts, layout), layout)
        yield first, layout, cache


class _Noise:
    """One generator a document; they run on the CPU, so that every device sees the same noise."""

    def __init__(self, seed: int, first: int, layout: DocumentLayout, concept_dim: int, *, sample: int) -> None:
        self._layout = layout
        self._concept_dim = concept_dim
        self._generators = [
            torch.Generator().manual_seed(_mixed(seed, first + i, sample)) for i in range(layout.num_documents)
        ]

    def draw(self) -> Tensor:
        """The next N(0, 1) noise, ``[N, C]``."""
        parts = [
            torch.randn(length, self._concept_dim, generator=generator)
            for length, generator in zip(self._layout.lengths, self._generators)
        ]
        return torch.cat(parts).to(self._layout.device)


def _mixed(*numbers: int) -> int:
    # Mixed, not added: seed 1 must not give document 0 what seed 0 gives document 1.
    entropy = [number % 2**64 for number in numbers]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def _device_of(model: TwoTowerModel) -> torch.device:
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def _by_document(raw: Tensor, layout: DocumentLayout) -> list[np.ndarray]:
    """Splits ``[N, C]`` into documents without their first positions."""
    parts = raw.float().cpu().split(list(layout.lengths))
    return [part[1:].numpy() for part in parts]


@contextmanager
def _inference(model: TwoTowerModel) -> Iterator[None]:
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in was_training:
            module.training = True
