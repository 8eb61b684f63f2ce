"""The learning-rate schedules of Meta's trainer, for recipes that must follow it to the digit.

fairseq2's own components give the same rates when they are told numbers that follow from others: ``cosine_annealing`` a
``cycle_len`` of ``num_steps - num_warmup_steps + 1``, ``polynomial_decay`` a ``power`` of 200, ``tri_stage`` start and
final rates as shares of the peak. These take them from the recipe, and so stay right when its ``num_steps`` changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.runtime.dependency import DependencyResolver
from torch.optim import Optimizer

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.training.lr_schedule import StepLR, run_length

META_LR: Final = "lcm_meta_lr"

MetaSchedule = Literal["cosine", "myle", "wsd", "polynomial", "noop"]

_USED: Final = {
    "cosine": ("num_warmup_steps", "start_lr", "final_lr"),
    "myle": ("num_warmup_steps", "start_lr"),
    "wsd": ("start_lr", "final_lr", "stage_ratios"),
    "polynomial": ("num_warmup_steps", "start_lr", "final_lr"),
    "noop": (),
}
"""Fields that each schedule has a use for."""

_DEFAULTS: Final = {
    "num_warmup_steps": 800,
    "start_lr": 1e-7,
    "final_lr": 1e-5,
    "stage_ratios": (0.1, 0.4, 0.5),
}

_POWER: Final = 200


@dataclass(kw_only=True)
class MetaLRConfig:
    """Which of Meta's schedules; the peak rate is the optimizer's ``lr``, the length ``regime.num_steps``.

    A field that is ``null`` has Meta's default, and can be set only where the schedule has a use for it.
    """

    schedule: MetaSchedule = "myle"
    """``cosine``: linear warm-up, then half a cosine. ``myle``: the same warm-up, then the inverse square root of the
    step. ``wsd``: linear, constant, exponential. ``polynomial``: the warm-up, then the 200th power of the steps left.
    ``noop``: constant."""

    num_warmup_steps: int | None = None
    """Steps of ``cosine``, ``myle`` and ``polynomial`` before the peak; 800 by default."""

    start_lr: float | None = None
    """The first step's rate; 1e-7 by default."""

    final_lr: float | None = None
    """What the rate falls to, except with ``myle``; 1e-5 by default."""

    stage_ratios: tuple[float, float, float] | None = None
    """Shares of the run's steps for the stages of ``wsd``, which add up to 1; 0.1, 0.4 and 0.5 by default."""

    def check(self, num_steps: int) -> None:
        """
        :param num_steps: The run's length.
        :raises ConfigError: A field cannot be honoured.
        """
        if self.schedule not in get_args(MetaSchedule):
            known = get_args(MetaSchedule)
            raise ConfigError(f"`lr_scheduler.config.schedule`: {unknown_name('schedule', str(self.schedule), known)}")
        used = _USED[self.schedule]
        for name in _DEFAULTS:
            if name not in used and getattr(self, name) is not None:
                raise ConfigError(
                    f"`lr_scheduler.config.{name}` has no meaning for the schedule {self.schedule}: leave it out."
                )
        if "num_warmup_steps" in used:
            self._check_warmup(num_steps)
        for name in ("start_lr", "final_lr"):
            value = self.value(name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ConfigError(f"`lr_scheduler.config.{name}` must be at least 0, but is {value}.")
        if self.schedule == "wsd":
            self._check_stages()

    def _check_warmup(self, num_steps: int) -> None:
        warmup, least = self.value("num_warmup_steps"), 1 if self.schedule == "myle" else 0
        if warmup < least:
            raise ConfigError(f"`lr_scheduler.config.num_warmup_steps` must be at least {least}, but is {warmup}.")
        if warmup >= num_steps:
            raise ConfigError(
                f"`lr_scheduler.config.num_warmup_steps` ({warmup}) must be below `regime.num_steps` ({num_steps})."
            )

    def _check_stages(self) -> None:
        ratios = self.value("stage_ratios")
        if len(ratios) != 3 or min(ratios) < 0.0 or not math.isclose(sum(ratios), 1.0):
            raise ConfigError(
                f"`lr_scheduler.config.stage_ratios` must be three shares that add up to 1, but is {list(ratios)}."
            )
        if self.value("final_lr") == 0.0:
            raise ConfigError("`lr_scheduler.config.final_lr` must be above 0: wsd falls to it by a factor a step.")

    def value(self, name: str) -> Any:
        """A field, or its default where it is not set."""
        value = getattr(self, name)
        return _DEFAULTS[name] if value is None else value


def lr_at(step: int, peak: float, num_steps: int, config: MetaLRConfig) -> float:
    """The rate used in optimizer step ``step``, counted from 0, of a run of ``num_steps``."""
    if config.schedule == "noop":
        return peak
    start, final = config.value("start_lr"), config.value("final_lr")
    if config.schedule == "wsd":
        return _three_stages(step, peak, start, final, [int(r * num_steps) for r in config.value("stage_ratios")])
    warmup = config.value("num_warmup_steps")
    if step < warmup:
        return start + (peak - start) * step / warmup
    if config.schedule == "myle":
        return peak * (warmup / step) ** 0.5
    if config.schedule == "polynomial":
        left = max(num_steps - step, 0) / (num_steps - warmup)
        return final + (peak - final) * left**_POWER
    # One step longer than what is left of the run, so that the last step is not quite at the final rate. A longer run
    # would start over, as the reference does.
    cycle = num_steps - warmup + 1
    return final + 0.5 * (peak - final) * (1.0 + math.cos(math.pi * ((step - warmup) % cycle) / cycle))


def _three_stages(step: int, peak: float, start: float, final: float, lengths: list[int]) -> float:
    rise, hold, fall = lengths
    if step < rise:
        return start + (peak - start) * step / rise
    if step < rise + hold:
        return peak
    if step < rise + hold + fall:
        share = (step - rise - hold) / fall
        return peak ** (1.0 - share) * final**share
    return final


def create_meta_lr(resolver: DependencyResolver, config: MetaLRConfig) -> LRScheduler:
    """Builds the scheduler for the run's ``regime.num_steps``."""
    num_steps = run_length(resolver, META_LR)
    config.check(num_steps)
    return StepLR(resolver.resolve(Optimizer), lambda step, peak: lr_at(step, peak, num_steps, config))
