"""The solvers behind the samplers: plain functions over the steps of a grid, and the table of them.

Shapes: ``...`` positions, C dimensions of a concept.

With a = alpha-bar of a timestep and b of the next one, each step keeps the noise it estimates and lowers its share; the
last one has b = 1 and lands on the clean estimate itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lexalcm.diffusion.clean_limits import CleanLimits
from lexalcm.diffusion.grid import Step

Denoise = Callable[[Tensor, int], Tensor]
"""A noisy ``[..., C]`` and its timestep to the predicted clean concept."""

_MOST_CONTINUED: Final = 1.0
"""Steps of equal length in l continue half of the last change, steps twice as long as the one before all of it."""

_MOST_CONTINUED_FROM_NOISE: Final = 0.75
"""With these two bounds it is nowhere worse than DDIM on a Gaussian, whatever the number of steps and their spacing."""


@dataclass(kw_only=True)
class SolverConfig(CleanLimits):
    """The part of a sampler's configuration that its solver reads."""

    epsilon_scaling: float | None = None
    """Divides the noise estimate at every step, lambda of Ning et al. 2024."""

    eta: float = 0.0
    """Share of fresh noise in DDIM's steps, eta: 0 is deterministic, 1 is ancestral sampling."""

    clip_noise: float | None = None
    """Clamps every component of the latents to plus and minus this."""

    noise_from_clipped: bool = False
    """Whether DDIM estimates the noise from the limited prediction, not from what the model said (in Meta's release
    ``use_clipped_model_output``)."""

    def clip(self, x: Tensor) -> Tensor:
        """Clamps latents, if that is asked for."""
        return x if self.clip_noise is None else x.clamp(-self.clip_noise, self.clip_noise)


def ddim(
    predict: Denoise,
    latents: Tensor,
    steps: list[Step],
    config: SolverConfig,
    variance_noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Song et al. 2021, equation 12. ``predict`` takes the number of the step.

    Returns the clean prediction of the last step.
    """
    x = latents
    clean = x
    for number, step in enumerate(steps):
        predicted = predict(x, number)
        clean = config.limit(predicted)
        if number == len(steps) - 1:
            break
        noise = None
        if config.eta > 0.0:
            noise = variance_noise(number) if variance_noise is not None else torch.randn_like(x)
        x = ddim_step(
            clean,
            x,
            step,
            noise_from=clean if config.noise_from_clipped else predicted,
            eta=config.eta,
            epsilon_scaling=config.epsilon_scaling,
            variance_noise=noise,
        )
        x = config.clip(x)
    return clean


def ddim_step(
    clean: Tensor,
    noisy: Tensor,
    step: Step,
    *,
    noise_from: Tensor | None = None,
    eta: float = 0.0,
    epsilon_scaling: float | None = None,
    variance_noise: Tensor | None = None,
) -> Tensor:
    """One step: ``sqrt(b) clean + sqrt(1 - b - s^2) noise + s z`` with ``s^2 = eta^2 (1-b)/(1-a) (1-a/b)``.

    :param noise_from: The clean prediction that leaves the noise over, where it is not ``clean``.
    """
    a, b = step.alpha, step.next_alpha
    noise = (noisy - a**0.5 * (clean if noise_from is None else noise_from)) / (1.0 - a) ** 0.5
    if epsilon_scaling is not None:
        noise = noise / epsilon_scaling
    variance = eta**2 * (1.0 - b) / (1.0 - a) * (1.0 - a / b)
    # In exact arithmetic never negative: eta is at most 1. Rounding may leave -1e-17 at the first step.
    direction = max(1.0 - b - variance, 0.0) ** 0.5
    x = b**0.5 * clean + direction * noise
    return x if variance_noise is None else x + variance**0.5 * variance_noise


def dpm_solver_2m(
    predict: Denoise,
    latents: Tensor,
    steps: list[Step],
    config: SolverConfig,
    variance_noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2, in ratios of e^l = sqrt(a) / sqrt(1 - a) instead of logarithms l.

    At zero terminal SNR e^l is 0 and the first step infinite in l. The second step then takes the clean prediction for
    linear in e^l instead of l, and so is of second order too. The first step and the last are plain first-order ones.
    What the last change of the prediction is continued by is bounded, for grids of few and very unequal steps.
    """
    x = latents
    clean = x
    previous: Tensor | None = None
    previous_ratio = 0.0
    for number, step in enumerate(steps):
        clean = config.limit(predict(x, number))
        if number == len(steps) - 1:
            break
        a, b = step.alpha, step.next_alpha
        ratio, next_ratio = (a / (1.0 - a)) ** 0.5, (b / (1.0 - b)) ** 0.5
        estimate = clean
        if previous is not None and ratio > previous_ratio:
            if previous_ratio > 0.0:
                share = min(math.log(next_ratio / ratio) / math.log(ratio / previous_ratio) / 2.0, _MOST_CONTINUED)
            else:
                share = min((next_ratio - ratio) / ratio / 2.0, _MOST_CONTINUED_FROM_NOISE)
            estimate = clean + share * (clean - previous)
        x = ((1.0 - b) / (1.0 - a)) ** 0.5 * x + b**0.5 * (1.0 - ratio / next_ratio) * estimate
        x = config.clip(x)
        previous, previous_ratio = clean, ratio
    return clean


SAMPLERS: Final = {"ddim": ddim, "dpm_solver_2m": dpm_solver_2m}

LIMITING: Final = ("ddim", "dpm_solver_2m")
"""Samplers that limit the clean predictions they are given."""
