"""The timesteps that inference visits, first to last, and what each step leads to."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final, Literal, get_args

from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.errors import ConfigError, unknown_name

Spacing = Literal["trailing", "dense_ends", "meta_trailing", "leading", "linspace"]

_CLEANEST: Final = 1.0 - 1e-12

_COSINE_SHARE: Final = 0.75
"""How much of ``dense_ends`` is cosine, the rest evenly spaced; benchmarks/results/sampler_quality.md measures it."""

_LAST_SHARE: Final = 0.01
"""Where ``dense_ends`` ends, as a share of the timesteps: the first of 100."""


@dataclass(frozen=True)
class Step:
    """One step of a sampler."""

    timestep: int

    alpha: float
    """Alpha-bar at the timestep."""

    next_alpha: float
    """Alpha-bar it goes to; 1 at the end."""


def plan_steps(schedule: NoiseSchedule, num_steps: int, spacing: Spacing) -> list[Step]:
    """Lists the steps with their alpha-bars; the last goes to alpha-bar 1.

    In Meta's release ``set_alpha_to_one: false`` lets it go to the table's first alpha-bar; what it returns, the last
    clean prediction, is the same.

    Warns when sampling would start at a timestep with some signal in it, though the model knows pure noise.
    """
    timesteps = inference_timesteps(schedule, num_steps, spacing)
    if schedule.has_zero_terminal_snr and timesteps[0] != schedule.last_timestep:
        warnings.warn(
            f"`sampler.spacing: {spacing}` starts at timestep {timesteps[0]}, which the model expects to hold a little of "
            f"the concept, but starts it from pure noise. `trailing` starts at {schedule.last_timestep}.",
            stacklevel=3,
        )
    # A steep schedule's first rows round to 1, which would leave no noise to estimate.
    alphas = [min(float(schedule.table[t]), _CLEANEST) for t in timesteps]
    return [Step(*step) for step in zip(timesteps, alphas, [*alphas[1:], 1.0])]


def inference_timesteps(schedule: NoiseSchedule, num_steps: int, spacing: Spacing = "trailing") -> list[int]:
    """Returns descending timesteps of the schedule.

    ``trailing`` gives as many as are asked for and starts at pure noise (Lin et al. 2023, table 2). ``dense_ends`` does
    so too, ends at the first hundredth of the timesteps, and takes its smallest steps at both ends: for few passes. The
    others are those of Meta's release: ``meta_trailing`` steps by a whole number and so gives ``ceil(N / (N // S))`` of
    them, 50 where 40 are asked of 100.

    :raises ConfigError: ``num_steps`` is not between 1 and the number of trained timesteps.
    """
    total, first = schedule.num_timesteps, schedule.first_timestep
    if spacing not in get_args(Spacing):
        raise ConfigError(f"`spacing`: {unknown_name('spacing', str(spacing), get_args(Spacing))}")
    if not 1 <= num_steps <= total:
        raise ConfigError(
            f"`num_steps` must be between 1 and {total}, the timesteps the model was trained with, but is {num_steps}."
        )
    stride = total // num_steps
    if spacing == "trailing":
        # The k-th of S is at T - k T / S, rounded; halves go up, so that the list depends on no platform's rounding.
        steps = [(2 * (num_steps - k) * total + num_steps) // (2 * num_steps) - 1 for k in range(num_steps)]
    elif spacing == "dense_ends":
        steps = _dense_ends(total, num_steps)
    elif spacing == "meta_trailing":
        steps = list(range(total - 1, -1, -stride))
    elif spacing == "leading":
        steps = list(range(0, total, stride))[::-1]
    else:
        steps = _linspace(total, num_steps)[::-1]
    return [first + step for step in steps]


def _dense_ends(total: int, num_steps: int) -> list[int]:
    steps = [total - 1]
    end = max(round(_LAST_SHARE * total) - 1, 0)
    for k in range(1, num_steps):
        left = 1.0 - k / (num_steps - 1)
        cosine = (1.0 - math.cos(math.pi * left)) / 2.0
        wanted = math.floor(end + (total - 1 - end) * (_COSINE_SHARE * cosine + (1.0 - _COSINE_SHARE) * left) + 0.5)
        # Below the one before, and leaving room for those to come.
        steps.append(max(min(wanted, steps[-1] - 1), num_steps - 1 - k))
    return steps


def _linspace(total: int, num_steps: int) -> list[int]:
    if num_steps == 1:
        return [0]
    gap = (total - 1) / (num_steps - 1)
    # The upper half counts from the end, as torch.linspace does: truncation then hits other values.
    return [
        int(i * gap) if i < num_steps // 2 else int((total - 1) - gap * (num_steps - 1 - i)) for i in range(num_steps)
    ]
