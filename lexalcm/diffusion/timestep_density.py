"""How often each timestep is trained.

Shapes: S trained timesteps, in ascending order.

A continuous density on (0, 1], where 1 is pure noise, is integrated over each timestep's interval, so that densities
with a pole at either end stay finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from lexalcm.errors import ConfigError, unknown_name

DensityKind = Literal["uniform", "beta", "logit_normal", "meta_beta"]

_QUADRATURE_POINTS: Final = 4096


@dataclass(kw_only=True)
class TimestepDensityConfig:
    """The distribution that training draws timesteps from."""

    kind: DensityKind = "uniform"
    """``uniform``; ``beta``: t/T ~ Beta(a, b), so that a = 1, b = 1/2 is T(1 - u^2) for uniform u, more mass on high
    noise; ``logit_normal``: t/T = sigmoid(mean + std z); ``meta_beta``: the beta density read off at t/T, as Meta's
    release does."""

    a: float = 1.0
    """First parameter of the beta densities; above 1 moves mass away from low noise."""

    b: float = 1.0
    """Second parameter of the beta densities; below 1 moves mass to high noise."""

    mean: float = 0.0
    """Mean of the normal under ``logit_normal``; above 0 moves mass to high noise."""

    std: float = 1.0
    """Standard deviation of the normal under ``logit_normal``."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        where = "`timestep_density"
        if self.kind not in get_args(DensityKind):
            raise ConfigError(f"{where}.kind`: {unknown_name('density', str(self.kind), get_args(DensityKind))}")
        for name in ("a", "b", "std"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{where}.{name}` must be above 0, but is {getattr(self, name)}.")
        if self.kind == "meta_beta" and self.b < 1.0:
            raise ConfigError(
                f"{where}.b` must be at least 1 for meta_beta, whose weight of the last timestep is infinite below, but is "
                f"{self.b}. Use `kind: beta`, which integrates the density."
            )


def timestep_probabilities(config: TimestepDensityConfig, num_timesteps: int) -> Tensor:
    """Returns float64 ``[S]`` probabilities.

    :raises ConfigError: The density cannot be honoured.
    """
    config.check()
    if config.kind == "uniform":
        mass = torch.ones(num_timesteps, dtype=torch.float64)
    elif config.kind == "meta_beta":
        u = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        mass = u ** (config.a - 1.0) * (1.0 - u) ** (config.b - 1.0)
    else:
        edges = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        cumulative = _beta_cdf(edges, config.a, config.b) if config.kind == "beta" else _logit_normal_cdf(edges, config)
        mass = cumulative.diff()
    if not torch.isfinite(mass).all() or mass.sum() <= 0.0:
        raise ConfigError(f"`timestep_density` gives no timestep any weight: {config}.")
    return mass / mass.sum()


def _logit_normal_cdf(x: Tensor, config: TimestepDensityConfig) -> Tensor:
    return torch.special.ndtr((torch.logit(x) - config.mean) / config.std)


def _beta_cdf(x: Tensor, a: float, b: float) -> Tensor:
    """The regularised incomplete beta function, which torch lacks.

    With u = s^a for the lower half and its mirror image for the upper, the integrand of s^(a-1) (1-s)^(b-1) has no pole
    left, and Gauss-Legendre quadrature is exact to many digits.
    """
    if a == 1.0:
        return 1.0 - (1.0 - x) ** b
    if b == 1.0:
        return x**a
    below = _lower_integral(torch.clamp(x, max=0.5), a, b)
    above = _lower_integral(torch.clamp(1.0 - x, max=0.5), b, a)
    half_low, half_high = (_lower_integral(torch.tensor([0.5], dtype=torch.float64), p, q) for p, q in ((a, b), (b, a)))
    total = half_low + half_high
    return torch.where(x <= 0.5, below, total - above) / total


def _lower_integral(x: Tensor, a: float, b: float) -> Tensor:
    """Integral of s^(a-1) (1-s)^(b-1) from 0 to x <= 1/2, in the variable u = s^a."""
    step = (torch.arange(_QUADRATURE_POINTS, dtype=torch.float64) + 0.5) / _QUADRATURE_POINTS
    top = x**a
    s = (top[:, None] * step) ** (1.0 / a)
    return top / a * ((1.0 - s) ** (b - 1.0)).mean(dim=1)
