"""Dropout on CPU: the share that is dropped, the scale of the rest, and its gradient."""

from __future__ import annotations

import pytest
import torch

from lexalcm.models.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.35, 0.5, 0.9])
def test_a_share_p_is_dropped_and_the_rest_scaled(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 333)
    y = Dropout(p)(x)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=4e-3)
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - p)), rtol=2e-4, atol=0)


def test_neighbours_are_dropped_independently() -> None:
    # Four of them share one random number.
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).float().view(-1, 4)
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert correlation.abs().max() < 0.015


def test_the_gradient_passes_where_the_value_does() -> None:
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


@pytest.mark.parametrize("p", [1e-6, 1.0 - 1e-6])
def test_a_share_that_rounding_would_change_is_kept(p: float) -> None:
    torch.manual_seed(0)
    dropped = (Dropout(p)(torch.ones(4_000_000)) == 0).sum().item()
    assert dropped == pytest.approx(4_000_000 * p, abs=8)


def test_nothing_is_dropped_in_evaluation_or_at_p_0() -> None:
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_seed_decides_and_the_type_is_kept() -> None:
    x = torch.ones(4, 6, dtype=torch.bfloat16)
    made = []
    for _ in range(2):
        torch.manual_seed(5)
        made.append(Dropout(0.4)(x))
    assert torch.equal(*made) and made[0].dtype == torch.bfloat16
