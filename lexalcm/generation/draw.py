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
    variance_noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Turns noise into clean, normalised concepts.

    :param cache: Of :meth:`~lexalcm.models.interface.TwoTowerModel.denoise_cache`.
    :param latents: N(0, 1) noise ``[..., C]`` at the positions that the cache was made for.
    :param variance_noise: As in :func:`lexalcm.diffusion.samplers.sample`.
    :returns: ``[..., C]``, float32.
    """
    return sampler(
        lambda noisy, timestep: model.denoise_step(noisy, timestep, cache),
        latents,
        model.schedule,
        unconditional=lambda noisy, timestep: model.denoise_step(noisy, timestep, cache, dropped=True),
        variance_noise=variance_noise,
    )
