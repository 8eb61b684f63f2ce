"""No step puts NaN into the weights, the optimizer's averages or the EMA."""

from __future__ import annotations

import copy

import pytest
import torch
from fairseq2.nn.data_parallel import get_data_parallel_facade
from torch import Tensor
from torch.nn import Linear, Module

from lexalcm.training.ema import ExponentialMovingAverage
from lexalcm.training.finite_steps import FiniteSteps


class Trained:
    """A layer, trained as fairseq2's trainer does it."""

    def __init__(self, optimizer_kls: type[torch.optim.Optimizer] = torch.optim.AdamW) -> None:
        torch.manual_seed(0)
        self.model: Module = Linear(3, 2)
        self.optimizer = optimizer_kls(self.model.parameters(), lr=0.1, weight_decay=0.1)
        self.ema = ExponentialMovingAverage(self.model, self.optimizer, decay=0.9)
        self.skips: list[int] = []
        FiniteSteps(self.model, self.optimizer, on_skip=self.skips.append)
        self.facade = get_data_parallel_facade(self.model)

    def step(self, scale: float = 1.0, *, max_norm: float | None = 1.0) -> None:
        loss = self.model(torch.ones(4, 3)).square().sum() * scale
        loss.backward()
        self.facade.clip_grad_norm(max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, object]:
        return copy.deepcopy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})


def flat(state: object) -> list[object]:
    if isinstance(state, dict):
        return [x for value in state.values() for x in flat(value)]
    if isinstance(state, (list, tuple)):
        return [x for value in state for x in flat(value)]
    return [state.tolist() if isinstance(state, Tensor) else state]


@pytest.mark.parametrize("optimizer_kls", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("max_norm", [1.0, None])
def test_a_gradient_that_is_not_finite_changes_nothing(
    optimizer_kls: type[torch.optim.Optimizer], scale: float, max_norm: float | None
) -> None:
    trained = Trained(optimizer_kls)
    trained.step(max_norm=max_norm)
    before = flat(trained.state())
    trained.step(scale, max_norm=max_norm)
    assert flat(trained.state()) == before
    assert trained.skips == [1]


def test_a_skipped_step_leaves_no_trace_in_those_that_follow() -> None:
    disturbed, quiet = Trained(), Trained()
    for scale in (1.0, 2.0, float("nan"), 0.5):
        disturbed.step(scale)
        if scale == scale:
            quiet.step(scale)
    assert flat(disturbed.state()) == flat(quiet.state())


def test_skipped_steps_in_a_row_are_counted_and_a_good_one_ends_the_row() -> None:
    trained = Trained()
    for scale in (float("nan"), float("inf"), 1.0, float("nan")):
        trained.step(scale)
    assert trained.skips == [1, 2, 1]


def test_one_infinite_element_is_enough_whatever_clipping_makes_of_the_others() -> None:
    trained = Trained()
    before = flat(trained.state())
    trained.model(torch.ones(1, 3)).sum().backward()
    weight = trained.model.weight
    assert isinstance(weight, Tensor) and weight.grad is not None
    weight.grad[0, 0] = float("inf")
    trained.facade.clip_grad_norm(1.0)
    trained.optimizer.step()
    assert flat(trained.state()) == before
