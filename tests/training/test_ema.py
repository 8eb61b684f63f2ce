"""The average rides on any optimizer: updated after its steps, saved and restored with its state."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.nn import Linear
from torch.optim import SGD, AdamW, Optimizer

from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.training.ema import ExponentialMovingAverage
from lexalcm.training.optimizers import CompositeOptimizer


def take_steps(model: Linear, optimizer: Optimizer, count: int) -> None:
    for _ in range(count):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_average_follows_its_formula() -> None:
    model = Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    ema = ExponentialMovingAverage(model, optimizer, decay=0.5)
    expected = model.weight.detach().clone()
    for step in range(1, 4):
        take_steps(model, optimizer, 1)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.averages["weight"], expected)


def test_swapping_in_is_undone_exactly() -> None:
    model = Linear(3, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    ema = ExponentialMovingAverage(model, optimizer, decay=0.9)
    take_steps(model, optimizer, 3)
    trained, averaged = model.weight.detach().clone(), ema.averages["weight"].clone()
    with ema.swapped_in():
        assert torch.equal(model.weight, averaged)
    assert torch.equal(model.weight, trained) and torch.equal(ema.averages["weight"], averaged)


def composite(model: Linear) -> Optimizer:
    return CompositeOptimizer([SGD([model.weight], lr=0.1, momentum=0.9), AdamW([model.bias], lr=0.1)])


@pytest.mark.parametrize("make", [lambda m: AdamW(m.parameters(), lr=0.1), composite], ids=["adamw", "composite"])
def test_a_restored_optimizer_goes_on_bit_for_bit(make) -> None:
    torch.manual_seed(0)
    model = Linear(3, 2)
    optimizer = make(model)
    ema = ExponentialMovingAverage(model, optimizer, decay=0.9)
    take_steps(model, optimizer, 3)
    again = Linear(3, 2)
    again.load_state_dict(model.state_dict())
    other = make(again)
    other_ema = ExponentialMovingAverage(again, other, decay=0.9)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    for m, o in ((model, optimizer), (again, other)):
        torch.manual_seed(1)
        take_steps(m, o, 3)
    assert torch.equal(model.weight, again.weight) and torch.equal(model.bias, again.bias)
    assert torch.equal(ema.averages["weight"], other_ema.averages["weight"])


def test_resuming_without_an_average_is_refused() -> None:
    model = Linear(3, 2)
    state = SGD(model.parameters(), lr=0.1).state_dict()
    optimizer = SGD(model.parameters(), lr=0.1)
    ExponentialMovingAverage(model, optimizer, decay=0.9)
    with pytest.raises(CheckpointError, match=r"ema\.decay"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_a_decay_outside_its_range_is_refused(decay: float) -> None:
    model = Linear(3, 2)
    with pytest.raises(ConfigError, match=r"ema\.decay"):
        ExponentialMovingAverage(model, SGD(model.parameters(), lr=0.1), decay=decay)
