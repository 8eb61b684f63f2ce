"""How often each timestep is trained.

Shapes: S trained timesteps, in ascending order.

A continuous density on (0, 1], where 1 is pure noise, is integrated over each timestep's interval, so that densities
with a pole at either end stay finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from lexalcm.errors import ConfigError, unknown_name

DensityKind = Literal["uniform", "beta", "logit_normal", "meta_beta"]

_QUADRATURE_POINTS: Final = 64


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
    elif config.kind == "beta":
        mass = _beta_masses(num_timesteps, config.a, config.b)
    else:
        edges = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        mass = torch.special.ndtr((torch.logit(edges) - config.mean) / config.std).diff()
    if not torch.isfinite(mass).all() or mass.sum() <= 0.0:
        raise ConfigError(f"`timestep_density` gives no timestep any weight: {config}.")
    return mass / mass.sum()


def _beta_masses(count: int, a: float, b: float) -> Tensor:
    """Integrals of s^(a-1) (1-s)^(b-1) over the intervals of a grid on [0, 1], up to a common factor.

    Gauss-Legendre quadrature of each by itself. The two outer ones may end in a pole: with s = w^p the integrand there
    is w^(p a - 1), which p a >= 4 makes smooth.
    """
    if count == 1:
        return torch.ones(1, dtype=torch.float64)
    nodes, weights = _gauss_legendre(_QUADRATURE_POINTS)
    width = 1.0 / count
    inner = (torch.arange(1, count - 1, dtype=torch.float64)[:, None] + nodes) * width
    rows = torch.cat(
        (
            _log_pole(nodes, width, a, b)[None],
            (a - 1.0) * inner.log() + (b - 1.0) * (-inner).log1p() + math.log(width),
            _log_pole(nodes, width, b, a)[None],
        )
    )
    # Relative to the largest, so that no parameters make all of them underflow.
    return (rows - rows.max()).exp() @ weights


def _log_pole(nodes: Tensor, width: float, a: float, b: float) -> Tensor:
    """Logarithm of the integrand over (0, width] in w, where s = width w^p."""
    p = max(1, math.ceil(4.0 / a))
    rest = (b - 1.0) * (-width * nodes**p).log1p()
    return math.log(p) + a * math.log(width) + (p * a - 1.0) * nodes.log() + rest


def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], from the eigenvectors of the Jacobi matrix (Golub and Welsch 1969)."""
    k = torch.arange(1, count, dtype=torch.float64)
    off_diagonal = k / (4.0 * k**2 - 1.0).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return (nodes + 1.0) / 2.0, vectors[0] ** 2
