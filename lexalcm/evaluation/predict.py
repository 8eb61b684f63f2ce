"""Predictions of every position from its true history, by any two-tower model.

Shapes: T concepts of a document, N concepts of a packed batch, C dimensions, S samples.

Noise is drawn document by document from a generator of the document's own, so that a prediction depends on neither the
batch nor the order of documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from lexalcm.diffusion.samplers import SamplerConfig, sample
from lexalcm.evaluation.batches import packed
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel

_PHI = 0x9E3779B97F4A7C15


def one_pass(
    model: TwoTowerModel,
    documents: Iterable[np.ndarray],
    *,
    device: torch.device | str = "cpu",
    concepts_per_batch: int = 8192,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Predicts in one call of the denoiser, from pure noise, without guidance.

    :param documents: ``[T, C]`` as stored, cut as in the protocol.
    :returns: For each document float32 ``[T - 1, C]`` on the scale of the stored embeddings; row t - 1 predicts concept t.
    """
    for layout, cache, noise in _encoded(model, documents, 1, device, concepts_per_batch, seed):
        with _inference(model):
            clean = model.denoise_step(noise[0], model.schedule.last_timestep, cache)
            raw = model.denormalize(clean)
        yield from _by_document(raw, layout)


def samples(
    model: TwoTowerModel,
    documents: Iterable[np.ndarray],
    config: SamplerConfig,
    *,
    num_samples: int = 1,
    device: torch.device | str = "cpu",
    concepts_per_batch: int = 8192,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Draws samples of every position.

    :returns: For each document float32 ``[S, T - 1, C]`` on the scale of the stored embeddings.
    """
    for layout, cache, noise in _encoded(model, documents, num_samples, device, concepts_per_batch, seed):
        drawn = []
        for latents in noise:
            with _inference(model):
                clean = sample(
                    lambda x, t: model.denoise_step(x, t, cache),
                    latents,
                    model.schedule,
                    config,
                    unconditional=lambda x, t: model.denoise_step(x, t, cache, dropped=True),
                )
                drawn.append(_by_document(model.denormalize(clean), layout))
        for per_sample in zip(*drawn):
            yield np.stack(per_sample)


def _encoded(
    model: TwoTowerModel,
    documents: Iterable[np.ndarray],
    num_samples: int,
    device: torch.device | str,
    concepts_per_batch: int,
    seed: int,
) -> Iterator[tuple[DocumentLayout, object, Tensor]]:
    """Yields, batch by batch: the layout, the denoiser's cache, and noise ``[S, N, C]``."""
    device = torch.device(device)
    for first, batch in packed(documents, concepts_per_batch=concepts_per_batch):
        layout = DocumentLayout([len(d) for d in batch])
        noise = torch.cat([_noise(seed, first + i, num_samples, d.shape) for i, d in enumerate(batch)], dim=1)
        layout.to(device)
        with _inference(model):
            concepts = model.normalize(torch.from_numpy(np.concatenate(batch)).to(device))
            cache = model.denoise_cache(model.encode(concepts, layout), layout)
        yield layout, cache, noise.to(device)


def _noise(seed: int, index: int, num_samples: int, shape: Sequence[int]) -> Tensor:
    """N(0, 1) noise ``[S, T, C]`` of one document; the first sample is the same however many are drawn."""
    generator = torch.Generator().manual_seed((seed * _PHI + index) % 2**63)
    return torch.randn(num_samples, *shape, generator=generator)


def _by_document(raw: Tensor, layout: DocumentLayout) -> list[np.ndarray]:
    """Splits ``[N, C]`` into documents without their first positions."""
    parts = raw.float().cpu().split(list(layout.lengths))
    return [part[1:].numpy() for part in parts]


@contextmanager
def _inference(model: TwoTowerModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)
