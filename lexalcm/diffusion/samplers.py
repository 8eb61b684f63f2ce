"""Samplers: what turns noise into a clean concept by a few calls of a denoiser.

Shapes: ``...`` positions, C dimensions of a concept. Everything is float32 at least, whatever the model runs in.

A sampler sees predicted *clean* concepts only. How they lead from one timestep to the next is the business of
:mod:`lexalcm.diffusion.solvers`; guidance, what is told of each step, and the watch over infinity and NaN stand here,
once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args

import torch
from torch import Tensor

from lexalcm.diffusion.grid import Spacing, Step, plan_steps
from lexalcm.diffusion.guidance import guide
from lexalcm.diffusion.parametrization import precise
from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.diffusion.solvers import LIMITING, SAMPLERS, Denoise, SolverConfig
from lexalcm.errors import ConfigError, LexalcmError, unknown_name

DenoiseBoth = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""The same to two predictions, with the context and without it."""


class SamplingError(LexalcmError):
    """Latents that are not finite any more."""


@dataclass(kw_only=True)
class SamplerConfig(SolverConfig):
    """How noise becomes a concept."""

    name: str = "ddim"
    """``ddim`` (Song et al. 2021) or ``dpm_solver_2m`` (Lu et al. 2022), of second order and good at 8 to 12 steps;
    or the name of another entry of :data:`SAMPLERS`."""

    num_steps: int = 40
    """Calls of the denoiser, S; twice as many where it is guided."""

    spacing: Spacing = "trailing"
    """Which timesteps are visited; ``trailing`` starts at pure noise and visits S of them."""

    guidance_scale: float = 1.0
    """How far to go beyond the conditional prediction, g: ``e_u + g (e_c - e_u)``; 1 switches guidance off."""

    guidance_rescale: float = 0.0
    """How much of the spread that guidance adds is taken back, from 0 to 1: the phi of Lin et al. 2023, section 3.4."""

    guidance_interval: tuple[float, float] | None = None
    """Lowest and highest share of noise, 1 - alpha-bar, that is guided; the other steps cost half (Kynkaanniemi et al.
    2024, whose sigma is sqrt(s / (1 - s)) at share s). ``null``: all steps, but for the one at pure noise."""

    initial_noise_scale: float = 1.0
    """Standard deviation of the noise at the start, sigma_init."""

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
        interval = self.guidance_interval
        if interval is not None and not (len(interval) == 2 and 0.0 <= interval[0] < interval[1] <= 1.0):
            raise ConfigError(
                "`sampler.guidance_interval` must be two shares of noise, the lower first, from 0 (clean) to 1 (pure "
                f"noise), but is {list(interval)}."
            )
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
        if self.is_limiting and self.name not in LIMITING:
            raise ConfigError(
                f"`sampler.clip_clean` and `sampler.dynamic_thresholding_ratio` belong to {' and '.join(LIMITING)}, "
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
        both: DenoiseBoth | None = None,
        variance_noise: Callable[[int], Tensor] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class ConfiguredSampler:
    """:func:`sample` under a configuration that is checked."""

    config: SamplerConfig

    def __call__(
        self,
        denoise: Denoise,
        latents: Tensor,
        schedule: NoiseSchedule,
        *,
        unconditional: Denoise | None = None,
        both: DenoiseBoth | None = None,
        variance_noise: Callable[[int], Tensor] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        return sample(
            denoise,
            latents,
            schedule,
            self.config,
            unconditional=unconditional,
            both=both,
            variance_noise=variance_noise,
            on_step=on_step,
        )

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """The timesteps that are visited, first to last: as many as there are passes.

        :raises ConfigError: The schedule has fewer timesteps than steps are asked for, or none of them is guided.
        """
        steps = plan_steps(schedule, self.config.num_steps, self.config.spacing)
        _guided_timesteps(steps, schedule, self.config)
        return [step.timestep for step in steps]


def create_sampler(config: SamplerConfig) -> ConfiguredSampler:
    """:raises ConfigError: A field cannot be honoured."""
    config.check()
    return ConfiguredSampler(config)


def sample(
    denoise: Denoise,
    latents: Tensor,
    schedule: NoiseSchedule,
    config: SamplerConfig,
    *,
    unconditional: Denoise | None = None,
    both: DenoiseBoth | None = None,
    variance_noise: Callable[[int], Tensor] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draws clean, normalised concepts. Nothing here waits for the device before the last step.

    :param denoise: Predicts with the context.
    :param latents: N(0, 1) noise ``[..., C]``.
    :param unconditional: Predicts without it; needed, or ``both``, when ``guidance_scale`` is not 1.
    :param both: The two in one call, for guided steps; the others ask ``denoise``.
    :param variance_noise: The N(0, 1) noise of step i where ``eta`` is above 0; drawn here by default.
    :param on_step: Called after each prediction with its number, from 1, and the number of steps.
    :returns: ``[..., C]``, float32, or float64 where both latents and predictions are.
    :raises ConfigError: The configuration does not go with the schedule.
    :raises SamplingError: Latents became infinite or NaN; the message names the first step that saw it.
    """
    config.check()
    steps = plan_steps(schedule, config.num_steps, config.spacing)
    guided = _guided_timesteps(steps, schedule, config)
    if config.guidance_scale != 1.0 and both is None:
        if unconditional is None:
            raise ConfigError("`sampler.guidance_scale` other than 1 needs a prediction without context.")
        both = _in_turn(denoise, unconditional)
    watch = _FiniteWatch(steps)

    def predict(noisy: Tensor, number: int) -> Tensor:
        step = steps[number]
        if step.timestep in guided:
            assert both is not None
            clean, other = (precise(x) for x in both(noisy, step.timestep))
            alpha = torch.full((), step.alpha, dtype=noisy.dtype, device=noisy.device)
            clean = guide(clean, other, noisy, alpha, scale=config.guidance_scale, rescale=config.guidance_rescale)
        else:
            clean = precise(denoise(noisy, step.timestep))
        watch.note(noisy, clean)
        if on_step is not None:
            on_step(number + 1, len(steps))
        return clean

    start = precise(latents) * config.initial_noise_scale
    clean = SAMPLERS[config.name](predict, config.clip(start), steps, config, variance_noise)
    watch.check()
    return clean


def _guided_timesteps(steps: list[Step], schedule: NoiseSchedule, config: SamplerConfig) -> set[int]:
    if config.guidance_scale == 1.0:
        return set()
    # At pure noise both estimates of the noise are the latents themselves: there is nothing to guide.
    shares = {step.timestep: 1.0 - step.alpha for step in steps if step.timestep != schedule.last_timestep}
    if config.guidance_interval is None:
        return set(shares)
    low, high = config.guidance_interval
    guided = {timestep for timestep, share in shares.items() if low <= share <= high}
    if not guided:
        seen = ", ".join(f"{share:.3g}" for share in list(shares.values())[:12]) or "none but 1"
        raise ConfigError(
            f"`sampler.guidance_interval` {list(config.guidance_interval)} holds none of the shares of noise that "
            f"{len(steps)} steps visit.\nThey are {seen}. Widen it, or take more steps."
        )
    return guided


def _in_turn(denoise: Denoise, unconditional: Denoise) -> DenoiseBoth:
    return lambda noisy, timestep: (denoise(noisy, timestep), unconditional(noisy, timestep))


class _FiniteWatch:
    """Notes on the device which rows are finite, and looks at all notes at once."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._notes: list[Tensor] = []

    def note(self, noisy: Tensor, clean: Tensor) -> None:
        """What one step was given and what it predicted, both ``[..., C]``."""
        self._notes.append(torch.stack([torch.isfinite(x).all(dim=-1).flatten() for x in (noisy, clean)]))

    def check(self) -> None:
        """:raises SamplingError: A row was not finite."""
        # The first question alone waits for the device.
        if not self._notes or bool(torch.stack(self._notes).all()):
            return
        number = next(i for i, note in enumerate(self._notes) if not bool(note.all()))
        was_given, predicted = self._notes[number].cpu()
        what = "The denoiser's prediction"
        cause = "The model's weights, or the prediction type it is run with, are wrong."
        good = predicted
        if not bool(was_given.all()):
            what, cause = "What the denoiser was given", "The starting noise, or the last prediction, is too large."
            good = was_given
        bad = (~good).nonzero().flatten().tolist()
        rows = f" in {len(bad)} of {len(good)} rows, first in row {bad[0] + 1}" if len(good) > 1 else ""
        raise SamplingError(
            f"{what} at step {number + 1} of {len(self._steps)} (timestep {self._steps[number].timestep}) is not "
            f"finite{rows}. {cause}"
        )
