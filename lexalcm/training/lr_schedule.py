"""A learning-rate schedule whose warm-up is a share of the run: right for any number of steps, and for longer
reruns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from fairseq2.optim.lr_schedulers import AbstractLRScheduler, LRScheduler
from fairseq2.recipe.config import RegimeSection
from fairseq2.runtime.dependency import DependencyResolver
from torch.optim import Optimizer
from typing_extensions import override

from lexalcm.errors import ConfigError

WARMUP_SHARE_LR: Final = "lcm_warmup_share"


@dataclass(kw_only=True)
class WarmupShareConfig:
    """Linear warm-up, an optional plateau, then decay to a share of the peak rate."""

    warmup_share: float = 0.02
    """Share of the run's steps in which the rate rises linearly from 0 to the optimizer's ``lr``."""

    hold_share: float = 0.0
    """Share of the run's steps at the peak rate after the warm-up."""

    decay: Literal["cosine", "linear"] = "cosine"
    """The form of the fall in the remaining steps."""

    final_scale: float = 0.05
    """The last step's rate as a share of the peak rate."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        for name in ("warmup_share", "hold_share", "final_scale"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"`lr_scheduler.config.{name}` must be between 0 and 1, but is {value}.")
        if self.warmup_share + self.hold_share > 1.0:
            raise ConfigError(
                f"`lr_scheduler.config`: `warmup_share` ({self.warmup_share}) and `hold_share` ({self.hold_share}) add up to "
                f"more than the whole run."
            )


def rate_at(step: int, num_steps: int, config: WarmupShareConfig) -> float:
    """The multiple of the peak rate used in optimizer step ``step``, counted from 0, of a run of ``num_steps``."""
    warmup = config.warmup_share * num_steps
    if step + 1 < warmup:
        return (step + 1) / warmup
    hold_end = warmup + config.hold_share * num_steps
    if step < hold_end or num_steps <= hold_end:
        return 1.0
    progress = min((step - hold_end) / max(num_steps - 1 - hold_end, 1.0), 1.0)
    fall = 0.5 * (1.0 + math.cos(math.pi * progress)) if config.decay == "cosine" else 1.0 - progress
    return config.final_scale + (1.0 - config.final_scale) * fall


class StepLR(AbstractLRScheduler):
    """Applies a function of the optimizer step.

    A checkpoint holds only how far the scheduler has come, not the run's length: a run resumed with a larger
    ``num_steps`` follows the longer schedule from there.
    """

    def __init__(self, optimizer: Optimizer, lr_at: Callable[[int, float], float]) -> None:
        """
        :param lr_at: An optimizer step, counted from 0, and the optimizer's own rate to the rate used in that step.
        """
        self._lr_at = lr_at
        super().__init__(optimizer)
        optimizer.register_load_state_dict_post_hook(self._set_rates)

    def _set_rates(self, optimizer: Optimizer) -> None:
        # The trainer loads the scheduler first. The optimizer's state then brings the rate of its next step, by the
        # schedule of the run that saved it.
        self._last_lr = self._compute_lrs()
        for group, lr in zip(optimizer.param_groups, self._last_lr):
            group["lr"] = lr

    @override
    def _compute_lrs(self) -> list[float]:
        return [self._lr_at(self.last_epoch, lr) for lr in self.base_lrs]

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": list(self._last_lr)}


def create_warmup_share_lr(resolver: DependencyResolver, config: WarmupShareConfig) -> LRScheduler:
    """Builds the scheduler for the run's ``regime.num_steps``."""
    config.check()
    num_steps = run_length(resolver, WARMUP_SHARE_LR)
    return StepLR(resolver.resolve(Optimizer), lambda step, lr: lr * rate_at(step, num_steps, config))


def run_length(resolver: DependencyResolver, schedule: str) -> int:
    """The run's ``regime.num_steps``, which the schedule of this name needs."""
    num_steps = resolver.resolve(RegimeSection).num_steps
    if num_steps is None:
        raise ConfigError(f"`regime.num_steps` must be set for the `{schedule}` schedule.")
    return num_steps
