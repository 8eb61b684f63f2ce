"""One draw of next concepts by a two-tower model: its denoiser, with and without context, under a sampler.

Shapes: ``...`` positions, C dimensions of a concept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lexalcm.diffusion.samplers import Sampler
from lexalcm.models.interface import TwoTowerModel


def draw_concepts(
    model: TwoTowerModel,
    cache: Any,
    latents: Tensor,
    sampler: Sampler,
    *,
    next_only: bool = False,
    variance_noise: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Turns noise into clean, normalised concepts.

    :param cache: Of :meth:`~lexalcm.models.interface.TwoTowerModel.denoise_cache`, or of ``next_cache``.
    :param latents: N(0, 1) noise ``[..., C]`` at the positions that the cache was made for.
    :param next_only: The cache is for one position a document, ``[B, 1, C]``, where one pass over the weights for the
        predictions with and without context pays.
    :param variance_noise: As in :func:`lexalcm.diffusion.samplers.sample`, like ``on_step``.
    :returns: ``[..., C]``, float32.
    """
    return sampler(
        lambda noisy, timestep: model.denoise_step(noisy, timestep, cache),
        latents,
        model.schedule,
        unconditional=lambda noisy, timestep: model.denoise_step(noisy, timestep, cache, dropped=True),
        both=(lambda noisy, timestep: model.denoise_both(noisy, timestep, cache)) if next_only else None,
        variance_noise=variance_noise,
        on_step=on_step,
    )
