"""Noise schedules: tables of alpha-bar by timestep, built in float64.

Shapes: S rows of a table.

Two conventions of timesteps live side by side. LexaLCM-Pre1's ``cosine`` table has ``num_steps + 1`` rows of which row
0 is almost clean and never trained, so t runs from 1 to num_steps and its last row is exactly 0. The tables of Meta's
release have ``num_steps`` rows, all trained, t = 0 .. num_steps - 1. "Pure noise" is the last row in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from lexalcm.errors import ConfigError, unknown_name

ScheduleKind = Literal["cosine", "squaredcos_cap_v2", "linear", "scaled_linear", "sigmoid"]

_OFFSET: Final = 0.008


@dataclass(kw_only=True)
class ScheduleConfig:
    """The schedule a model is trained with; part of the model's configuration."""

    kind: ScheduleKind = "cosine"
    """``cosine`` is LexaLCM-Pre1's; the others are those of Meta's release."""

    num_steps: int = 100
    """The number of trained timesteps."""

    beta_start: float = 1e-4
    """First beta of ``linear`` and ``scaled_linear``."""

    beta_end: float = 0.02
    """Last beta of ``linear`` and ``scaled_linear``."""

    scaled_linear_exponent: float = 2.0
    """Exponent of ``scaled_linear``."""

    sigmoid_alpha: float = 1.5
    """Steepness of ``sigmoid``."""

    sigmoid_beta: float = 0.0
    """Offset of ``sigmoid``."""

    rescale_zero_terminal_snr: bool = False
    """Shift and scale the square roots of alpha-bar so that the last row is exactly 0 (Lin et al. 2023). The ``cosine``
    table ends at 0 by itself."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        if self.kind not in get_args(ScheduleKind):
            raise ConfigError(f"`schedule.kind`: {unknown_name('schedule', str(self.kind), get_args(ScheduleKind))}")
        if self.num_steps < 1:
            raise ConfigError(f"`schedule.num_steps` must be at least 1, but is {self.num_steps}.")
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise ConfigError(
                f"`schedule.beta_start` ({self.beta_start}) and `schedule.beta_end` ({self.beta_end}) must satisfy "
                f"0 < beta_start <= beta_end < 1."
            )
        if not self.scaled_linear_exponent > 0.0:
            raise ConfigError(
                f"`schedule.scaled_linear_exponent` must be above 0, but is {self.scaled_linear_exponent}."
            )
        if not self.sigmoid_alpha > 0.0:
            raise ConfigError(f"`schedule.sigmoid_alpha` must be above 0, but is {self.sigmoid_alpha}.")
        if self.rescale_zero_terminal_snr and self.num_steps < 2:
            raise ConfigError("`schedule.rescale_zero_terminal_snr` needs `schedule.num_steps` of at least 2.")


class NoiseSchedule:
    """Alpha-bar by timestep.

    A plain object, not a module: its table is on the CPU whatever device the model is built on, the meta device
    included, and no cast of the model reaches it.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        """:raises ConfigError: The configuration cannot be honoured."""
        config.check()
        self.config = config
        self.table = _build_table(config)
        """Alpha-bar of each row, float64 ``[S]``, on the CPU."""
        _check_table(self.table, config)
        self.first_timestep = 1 if config.kind == "cosine" else 0
        self.last_timestep = len(self.table) - 1
        self._by_device: dict[torch.device, Tensor] = {}

    @property
    def num_timesteps(self) -> int:
        """How many timesteps are trained."""
        return self.last_timestep - self.first_timestep + 1

    def trained_timesteps(self, device: torch.device) -> Tensor:
        """All of them, ascending, int64 ``[num_timesteps]``."""
        return torch.arange(self.first_timestep, self.last_timestep + 1, device=device)

    @property
    def has_zero_terminal_snr(self) -> bool:
        """Whether the last row holds no signal at all."""
        return bool(self.table[-1] == 0.0)

    def alpha_cumprod(self, timesteps: Tensor) -> Tensor:
        """Looks alpha-bar up.

        :param timesteps: int64, any shape, any device.
        :returns: float32, the same shape and device.
        """
        table = self._by_device.get(timesteps.device)
        if table is None:
            table = self._by_device[timesteps.device] = self.table.float().to(timesteps.device)
        return table[timesteps]

    def snr(self) -> Tensor:
        """Signal-to-noise ratio of each row, float64 ``[S]``; infinite where no noise is added."""
        return self.table / (1.0 - self.table)


def _build_table(config: ScheduleConfig) -> Tensor:
    if config.kind == "cosine":
        t = torch.arange(config.num_steps + 1, dtype=torch.float64, device="cpu") / config.num_steps
        table = _squared_cosine(t)
        table[-1] = 0.0  # cos(pi/2) in floating point is 6e-17, not 0
        return table
    table = torch.cumprod(1.0 - _betas(config), dim=0)
    if config.rescale_zero_terminal_snr:
        root = table.sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        table = root.square()
    return table


def _check_table(table: Tensor, config: ScheduleConfig) -> None:
    falls = len(table) == 1 or bool(table[-1] < table[0])
    if not (falls and bool(torch.isfinite(table).all())):
        raise ConfigError(
            f"`schedule` must give alpha-bars that fall, but `kind: {config.kind}` with these parameters gives "
            f"{table[0]:.3g} to {table[-1]:.3g}.\nBring its parameters nearer to their defaults."
        )


def _betas(config: ScheduleConfig) -> Tensor:
    def spaced(start: float, end: float) -> Tensor:
        return torch.linspace(start, end, config.num_steps, dtype=torch.float64, device="cpu")

    if config.kind == "linear":
        return spaced(config.beta_start, config.beta_end)
    if config.kind == "scaled_linear":
        exponent = config.scaled_linear_exponent
        return spaced(config.beta_start ** (1 / exponent), config.beta_end ** (1 / exponent)) ** exponent
    if config.kind == "squaredcos_cap_v2":
        return _betas_of(_squared_cosine, config.num_steps)
    return _betas_of(lambda u: _sigmoid_signal(u, config.sigmoid_alpha, config.sigmoid_beta), config.num_steps)


def _betas_of(signal: Callable[[Tensor], Tensor], num_steps: int) -> Tensor:
    """``min(1 - f((i + 1) / N) / f(i / N), 0.999)`` for a falling ``f``."""
    u = torch.arange(num_steps + 1, dtype=torch.float64, device="cpu") / num_steps
    values = signal(u)
    return torch.clamp(1.0 - values[1:] / values[:-1], max=0.999)


def _squared_cosine(u: Tensor) -> Tensor:
    return torch.cos((u + _OFFSET) / (1.0 + _OFFSET) * math.pi / 2).square()


def _sigmoid_signal(u: Tensor, alpha: float, beta: float) -> Tensor:
    """``sigmoid(beta - alpha * logit(u))``; u is rounded to float32 first, as Meta's release does."""
    u = u.float().clamp(1e-32, 1.0)
    odds = u / (1.0 - u)
    return torch.sigmoid(beta - alpha * odds.double().log())
