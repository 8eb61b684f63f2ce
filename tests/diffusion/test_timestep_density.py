"""Probabilities are the density's mass on each timestep's interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lexalcm.diffusion.timestep_density import TimestepDensityConfig, timestep_probabilities
from lexalcm.errors import ConfigError

EDGES = torch.arange(21, dtype=torch.float64) / 20


def beta(a: float, b: float) -> TimestepDensityConfig:
    return TimestepDensityConfig(kind="beta", a=a, b=b)


@pytest.mark.parametrize(
    ("density", "draw"),
    [
        (TimestepDensityConfig(), lambda n: torch.rand(n)),
        (beta(1.0, 0.5), lambda n: 1 - torch.rand(n) ** 2),
        (beta(0.7, 0.4), lambda n: torch.distributions.Beta(0.7, 0.4).sample((n,))),
        (beta(3.0, 2.0), lambda n: torch.distributions.Beta(3.0, 2.0).sample((n,))),
        (
            TimestepDensityConfig(kind="logit_normal", mean=0.5, std=1.2),
            lambda n: torch.sigmoid(0.5 + 1.2 * torch.randn(n)),
        ),
    ],
    ids=["uniform", "high-noise", "beta-poles", "beta-hill", "logit-normal"],
)
def test_draws_of_the_density_fall_into_each_interval_as_often(
    density: TimestepDensityConfig, draw: Callable[[int], Tensor]
) -> None:
    torch.manual_seed(0)
    count = 400_000
    share = torch.histc(draw(count), bins=20, min=0, max=1) / count
    torch.testing.assert_close(timestep_probabilities(density, 20).float(), share, rtol=0, atol=4e-3)


@pytest.mark.parametrize(
    ("density", "cumulative"),
    [
        (beta(1.0, 0.5), 1 - (1 - EDGES).sqrt()),
        (beta(0.5, 1.0), EDGES.sqrt()),
        (beta(2.0, 2.0), 3 * EDGES**2 - 2 * EDGES**3),
        (beta(0.5, 0.5), 2 / torch.pi * EDGES.sqrt().asin()),
    ],
    ids=["high-noise", "low-noise", "hill", "arcsine"],
)
def test_beta_densities_have_their_closed_forms(density: TimestepDensityConfig, cumulative: Tensor) -> None:
    torch.testing.assert_close(timestep_probabilities(density, 20), cumulative.diff(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(5, 30), (2, 300), (100, 100), (2000, 3)])
def test_steep_beta_densities_are_the_tails_of_a_binomial(a: int, b: int) -> None:
    n = a + b - 1

    def cumulative(x: Fraction) -> Fraction:
        return sum((math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1)), Fraction(0))

    edges = [cumulative(Fraction(t, 20)) for t in range(21)]
    expected = torch.tensor([float(high - low) for low, high in pairwise(edges)], dtype=torch.float64)
    torch.testing.assert_close(timestep_probabilities(beta(a, b), 20), expected, rtol=1e-6, atol=1e-15)


def test_no_parameters_are_too_steep_to_be_told() -> None:
    steep = timestep_probabilities(beta(1e5, 1e5), 20)
    assert steep[9] == pytest.approx(0.5) and steep[10] == pytest.approx(0.5)


@pytest.mark.parametrize("b", [0.01, 0.4, 1.0, 30.0])
@pytest.mark.parametrize("a", [0.01, 0.4, 1.0, 30.0])
def test_a_coarse_grid_adds_up_a_fine_one(a: float, b: float) -> None:
    fine = timestep_probabilities(beta(a, b), 120)
    for coarse in (1, 2, 12):
        expected = fine.reshape(coarse, -1).sum(1)
        torch.testing.assert_close(timestep_probabilities(beta(a, b), coarse), expected, rtol=1e-6, atol=1e-12)


def test_high_noise_density_is_that_of_one_minus_a_square() -> None:
    probabilities = timestep_probabilities(beta(1.0, 0.5), 100)
    assert (probabilities.diff() > 0).all() and probabilities[-1] == pytest.approx(0.1)


def test_metas_density_is_read_off_at_the_upper_end() -> None:
    found = timestep_probabilities(TimestepDensityConfig(kind="meta_beta", a=1.3, b=2.0), 20)
    weights = EDGES[1:] ** 0.3 * (1 - EDGES[1:])
    torch.testing.assert_close(found, weights / weights.sum())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "betta"}, r'timestep_density\.kind.*"beta"'),
        ({"kind": "beta", "a": 0.0}, r"timestep_density\.a.*above 0"),
        ({"kind": "beta", "b": -1.0}, r"timestep_density\.b.*above 0"),
        ({"kind": "logit_normal", "std": 0.0}, r"timestep_density\.std.*above 0"),
        ({"kind": "meta_beta", "b": 0.5}, r"timestep_density\.b.*kind: beta"),
    ],
)
def test_impossible_densities_are_refused_by_field(fields: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        timestep_probabilities(TimestepDensityConfig(**fields), 20)
