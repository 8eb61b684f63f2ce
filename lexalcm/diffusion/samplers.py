"""Samplers: plain functions that turn noise into a clean concept by a few calls of a denoiser.

Shapes: ``...`` positions, C dimensions of a concept. Everything is float32 at least, whatever the model runs in.

A sampler sees predicted *clean* concepts only. With a = alpha-bar of a timestep and b of the next one, each step keeps
the noise it estimates and lowers its share; the last one has b = 1 and lands on the clean estimate itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, get_args

import torch
from torch import Tensor

from lexalcm.diffusion.clean_limits import CleanLimits
from lexalcm.diffusion.grid import Spacing, Step, plan_steps
from lexalcm.diffusion.guidance import guide
from lexalcm.diffusion.parametrization import precise
from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.errors import ConfigError, LexalcmError, unknown_name

Denoise = Callable[[Tensor, int], Tensor]
"""A noisy ``[..., C]`` and its timestep to the predicted clean concept."""


class SamplingError(LexalcmError):
    """Latents that are not finite any more."""


@dataclass(kw_only=True)
class SamplerConfig(CleanLimits):
    """How noise becomes a concept."""

    name: str = "ddim"
    """``ddim`` (Song et al. 2021) or ``dpm_solver_2m`` (Lu et al. 2022), of second order and good at 8 to 12 steps;
    or the name of another entry of :data:`SAMPLERS`."""

    num_steps: int = 40
    """Calls of the denoiser, S; twice as many with guidance, but for the first."""

    spacing: Spacing = "trailing"
    """Which timesteps are visited; ``trailing`` starts at pure noise and visits S of them."""

    guidance_scale: float = 1.0
    """How far to go beyond the conditional prediction, g; 1 switches guidance off."""

    guidance_rescale: float = 0.0
    """How much of the spread that guidance adds is taken back, from 0 to 1."""

    initial_noise_scale: float = 1.0
    """Standard deviation of the noise at the start, sigma_init."""

    epsilon_scaling: float | None = None
    """Divides the noise estimate at every step (Ning et al. 2024)."""

    eta: float = 0.0
    """Share of fresh noise in DDIM's steps: 0 is deterministic, 1 is ancestral sampling."""

    clip_noise: float | None = None
    """Clamps every component of the latents to plus and minus this."""

    noise_from_clipped: bool = False
    """Whether DDIM estimates the noise from the limited prediction, not from what the model said (in Meta's release
    ``use_clipped_model_output``)."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        if self.name not in SAMPLERS:
            raise ConfigError(f"`sampler.name`: {unknown_name('sampler', str(self.name), SAMPLERS)}")
        if self.spacing not in get_args(Spacing):
            raise ConfigError(f"`sampler.spacing`: {unknown_name('spacing', str(self.spacing), get_args(Spacing))}")
        if self.num_steps < 1:
            raise ConfigError(f"`sampler.num_steps` must be at least 1, but is {self.num_steps}.")
        if not math.isfinite(self.guidance_scale):
            raise ConfigError(f"`sampler.guidance_scale` must be finite, but is {self.guidance_scale}.")
        if not 0.0 <= self.guidance_rescale <= 1.0:
            raise ConfigError(f"`sampler.guidance_rescale` must be between 0 and 1, but is {self.guidance_rescale}.")
        if not 0.0 <= self.eta <= 1.0:
            raise ConfigError(f"`sampler.eta` must be between 0 and 1, but is {self.eta}.")
        for name in ("initial_noise_scale", "epsilon_scaling", "clip_noise"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise ConfigError(f"`sampler.{name}` must be above 0, but is {value}.")
        if self.name != "ddim":
            for name, neutral in (("eta", 0.0), ("epsilon_scaling", None), ("noise_from_clipped", False)):
                if getattr(self, name) != neutral:
                    raise ConfigError(f"`sampler.{name}` belongs to the sampler ddim, not to {self.name}.")
        self.check_limits()
        if self.is_limiting and self.name not in _LIMITING:
            raise ConfigError(
                f"`sampler.clip_clean` and `sampler.dynamic_thresholding_ratio` belong to {' and '.join(_LIMITING)}, "
                f"not to {self.name}."
            )
        if self.noise_from_clipped and not self.is_limiting:
            raise ConfigError(
                "`sampler.noise_from_clipped` needs `sampler.clip_clean` or `sampler.dynamic_thresholding_ratio`."
            )
        if self.noise_from_clipped and self.epsilon_scaling is not None:
            raise ConfigError(
                "`sampler.noise_from_clipped` estimates the noise anew and would undo `sampler.epsilon_scaling`."
            )


class Sampler(Protocol):
    """What everything that draws concepts knows of a sampler; parameters and result are those of :func:`sample`."""

    def __call__(
        self,
        denoise: Denoise,
        latents: Tensor,
        schedule: NoiseSchedule,
        *,
        unconditional: Denoise | None = None,
        variance_noise: Callable[[int], Tensor] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor: ...


def create_sampler(config: SamplerConfig) -> Sampler:
    """Returns :func:`sample` under ``config``.

    :raises ConfigError: A field cannot be honoured.
    """
    config.check()
    return partial(sample, config=config)


def sample(
    denoise: Denoise,
    latents: Tensor,
    schedule: NoiseSchedule,
    config: SamplerConfig,
    *,
    unconditional: Denoise | None = None,
    variance_noise: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draws clean, normalised concepts.

    :param denoise: Predicts with the context.
    :param latents: N(0, 1) noise ``[..., C]``.
    :param unconditional: Predicts without it; needed when ``guidance_scale`` is not 1.
    :param variance_noise: The N(0, 1) noise of step i where ``eta`` is above 0; drawn here by default.
    :param on_step: Called after each prediction with its number, from 1, and the number of steps.
    :returns: ``[..., C]``, float32, or float64 where both latents and predictions are.
    :raises ConfigError: The configuration does not go with the schedule.
    :raises SamplingError: Latents became infinite or NaN.
    """
    config.check()
    if config.guidance_scale != 1.0 and unconditional is None:
        raise ConfigError("`sampler.guidance_scale` other than 1 needs a prediction without context.")
    steps = plan_steps(schedule, config.num_steps, config.spacing)

    def predict(noisy: Tensor, number: int) -> Tensor:
        step = steps[number]
        clean = precise(denoise(noisy, step.timestep))
        # At pure noise both estimates of the noise are the latents themselves: there is nothing to guide.
        if config.guidance_scale != 1.0 and step.timestep != schedule.last_timestep:
            assert unconditional is not None
            alpha = noisy.new_tensor(step.alpha)
            other = precise(unconditional(noisy, step.timestep))
            clean = guide(clean, other, noisy, alpha, scale=config.guidance_scale, rescale=config.guidance_rescale)
        if not torch.isfinite(clean).all():
            what = "The denoiser's prediction"
            cause = "The model's weights, or the prediction type it is run with, are wrong."
            if not torch.isfinite(noisy).all():
                what, cause = "What the denoiser was given", "The starting noise, or the last prediction, is too large."
            raise SamplingError(
                f"{what} at step {number + 1} of {len(steps)} (timestep {step.timestep}) is not finite. {cause}"
            )
        if on_step is not None:
            on_step(number + 1, len(steps))
        return clean

    start = precise(latents) * config.initial_noise_scale
    return SAMPLERS[config.name](predict, _clip(start, config), steps, config, variance_noise)


def ddim(
    predict: Denoise,
    latents: Tensor,
    steps: list[Step],
    config: SamplerConfig,
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
        x = _clip(x, config)
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
    config: SamplerConfig,
    variance_noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """DPM-Solver++(2M), Lu et al. 2022, algorithm 2, in ratios instead of logarithms.

    With l = log(sqrt(a) / sqrt(1 - a)), the exponential of a step's length h is the quotient of two signal-to-noise
    ratios; at zero terminal SNR h is infinite and exp(-h) is 0. The first step, the one after an infinite h, and the
    last are plain first-order ones.
    """
    x = latents
    clean = x
    previous: Tensor | None = None
    previous_length = 0.0
    for number, step in enumerate(steps):
        clean = config.limit(predict(x, number))
        if number == len(steps) - 1:
            break
        a, b = step.alpha, step.next_alpha
        decay = ((1.0 - b) * a / ((1.0 - a) * b)) ** 0.5
        estimate = clean
        length = -math.log(decay) if decay > 0.0 else float("inf")
        if previous is not None and 0.0 < previous_length < float("inf"):
            ratio = length / (2.0 * previous_length)
            estimate = clean + ratio * (clean - previous)
        x = ((1.0 - b) / (1.0 - a)) ** 0.5 * x + b**0.5 * (1.0 - decay) * estimate
        x = _clip(x, config)
        previous, previous_length = clean, length
    return clean


def _clip(x: Tensor, config: SamplerConfig) -> Tensor:
    return x if config.clip_noise is None else x.clamp(-config.clip_noise, config.clip_noise)


SAMPLERS: Final = {"ddim": ddim, "dpm_solver_2m": dpm_solver_2m}

_LIMITING: Final = ("ddim", "dpm_solver_2m")
"""Samplers that limit the clean predictions they are given."""
