"""The warm-up is a share of the run, for every length of it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter
from torch.optim import SGD

from lexalcm.errors import ConfigError
from lexalcm.training.lr_schedule import StepLR, WarmupShareConfig, rate_at


@pytest.mark.parametrize("num_steps", [1, 2, 7, 100, 250_000])
def test_rates_rise_to_the_peak_and_fall_to_the_final_share(num_steps: int) -> None:
    config = WarmupShareConfig(warmup_share=0.1, final_scale=0.05)
    steps = range(num_steps) if num_steps <= 100 else range(0, num_steps, 1000)
    rates = [rate_at(s, num_steps, config) for s in steps]
    assert all(0.0 < rate <= 1.0 for rate in rates)
    if num_steps >= 100:
        assert max(rates) > 0.99
        assert rate_at(num_steps - 1, num_steps, config) == pytest.approx(0.05)


def test_no_warmup_starts_at_the_peak() -> None:
    assert rate_at(0, 10, WarmupShareConfig(warmup_share=0.0)) == pytest.approx(1.0)


def test_hold_keeps_the_peak() -> None:
    config = WarmupShareConfig(warmup_share=0.1, hold_share=0.5, decay="linear", final_scale=0.0)
    assert [rate_at(s, 100, config) for s in (10, 40, 59)] == [1.0, 1.0, 1.0]
    assert rate_at(79, 100, config) == pytest.approx(1 - 19 / 39)


def test_the_first_step_of_a_warmup_is_not_wasted() -> None:
    assert rate_at(0, 100, WarmupShareConfig(warmup_share=0.1)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "fields", [{"warmup_share": 1.5}, {"warmup_share": 0.6, "hold_share": 0.6}, {"final_scale": -0.1}]
)
def test_impossible_shares_are_refused(fields: dict) -> None:
    with pytest.raises(ConfigError, match="share|final_scale"):
        WarmupShareConfig(**fields).check()


def scheduler(num_steps: int) -> StepLR:
    """Falls in a line from 0.5 to 0."""
    return StepLR(SGD([Parameter(torch.zeros(1))], lr=0.5), lambda step, lr: lr * (1 - step / num_steps))


def rates(scheduler: StepLR, num_steps: int) -> list[float]:
    seen = []
    for _ in range(num_steps):
        seen.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def test_each_step_uses_the_rate_of_its_number_from_0() -> None:
    assert rates(scheduler(10), 3) == pytest.approx([0.5, 0.45, 0.4])


def test_a_resumed_run_goes_on_where_it_was_with_the_length_it_has_now() -> None:
    first = scheduler(10)
    rates(first, 4)
    longer = scheduler(20)
    longer.load_state_dict(first.state_dict())
    longer.optimizer.step()
    longer.step()
    assert longer.get_last_lr() == pytest.approx([0.5 * (1 - 5 / 20)])
