"""Guidance on clean predictions is guidance on noise estimates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lexalcm.diffusion.guidance import guide

torch.manual_seed(0)
CONDITIONAL, OTHER, NOISY = torch.randn(3, 5, 64, dtype=torch.float64)


def on_noise(alpha: Tensor, scale: float, rescale: float) -> Tensor:
    """Section 4.5 of the specification of Meta's release, letter by letter."""
    signal, sigma = alpha.sqrt().unsqueeze(-1), (1 - alpha).sqrt().unsqueeze(-1)
    e_c, e_u = (NOISY - signal * CONDITIONAL) / sigma, (NOISY - signal * OTHER) / sigma
    e = e_u + scale * (e_c - e_u)
    spread = [((x - x.mean(-1, keepdim=True)).square().sum(-1, keepdim=True) / 63).sqrt() for x in (e_c, e)]
    e = e * (rescale * spread[0] / spread[1] + (1 - rescale))
    return (NOISY - sigma * e) / signal


@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    "alpha", [torch.tensor(1e-3), torch.tensor([0.05, 0.4, 0.7, 0.99, 0.9999])], ids=["one", "each"]
)
def test_it_is_guidance_of_the_noise_estimate(scale: float, rescale: float, alpha: Tensor) -> None:
    alpha = alpha.double()
    found = guide(CONDITIONAL, OTHER, NOISY, alpha, scale=scale, rescale=rescale)
    torch.testing.assert_close(found, on_noise(alpha, scale, rescale))


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_a_scale_of_one_changes_nothing(rescale: float) -> None:
    found = guide(CONDITIONAL, OTHER, NOISY, torch.tensor(0.4).double(), scale=1.0, rescale=rescale)
    torch.testing.assert_close(found, CONDITIONAL)


def test_full_rescaling_restores_the_spread_of_the_noise() -> None:
    alpha = torch.tensor(0.4, dtype=torch.float64)
    guided = guide(CONDITIONAL, OTHER, NOISY, alpha, scale=3.0, rescale=1.0)
    noise, own = ((NOISY - alpha.sqrt() * x) / (1 - alpha).sqrt() for x in (guided, CONDITIONAL))
    torch.testing.assert_close(noise.std(-1), own.std(-1))


def test_without_rescaling_no_spread_is_needed() -> None:
    found = guide(CONDITIONAL[:, :1], OTHER[:, :1], NOISY[:, :1], torch.tensor(0.4).double(), scale=3.0, rescale=0.0)
    torch.testing.assert_close(found, 3.0 * CONDITIONAL[:, :1] - 2.0 * OTHER[:, :1])


@pytest.mark.parametrize("alpha", [1e-4, 1e-8, 1e-12, 0.0])
def test_rescaling_in_float32_stays_exact_next_to_pure_noise(alpha: float) -> None:
    limit = on_noise(torch.tensor(max(alpha, 1e-10)).double(), 3.0, 0.7)
    found = guide(*(x.float() for x in (CONDITIONAL, OTHER, NOISY)), torch.tensor(alpha), scale=3.0, rescale=0.7)
    torch.testing.assert_close(found, limit.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_the_cleanest_rows_of_a_steep_schedule_divide_by_nothing(rescale: float) -> None:
    rows = [x.float() for x in (CONDITIONAL, OTHER, NOISY)]
    assert torch.isfinite(guide(*rows, torch.tensor(1.0), scale=3.0, rescale=rescale)).all()
