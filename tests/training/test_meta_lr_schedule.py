"""Meta's schedules: their shape by hand, and the same numbers as the components of fairseq2 that they come from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fairseq2.optim.lr_schedulers import CosineAnnealingLR, LRScheduler, MyleLR, PolynomialDecayLR, TriStageLR
from fairseq2.recipe.config import RegimeSection
from fairseq2.runtime.dependency import DependencyContainer, get_dependency_resolver
from fairseq2.utils.structured import ValueConverter
from torch.nn import Parameter
from torch.optim import SGD, Optimizer

from lexalcm.errors import ConfigError
from lexalcm.training.meta_lr_schedule import MetaLRConfig, create_meta_lr, lr_at

PEAK = 4e-4


def optimizer() -> SGD:
    return SGD([Parameter(torch.zeros(1))], lr=PEAK)


def rates(scheduler: LRScheduler, num_steps: int) -> list[float]:
    """The rate that each optimizer step uses."""
    seen = []
    for _ in range(num_steps):
        seen.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


def create(config: MetaLRConfig, num_steps: int | None) -> LRScheduler:
    container = DependencyContainer()
    container.register_instance(RegimeSection, RegimeSection(num_steps=num_steps))
    container.register_instance(Optimizer, optimizer())
    return create_meta_lr(container, config)


CASES: list[tuple[dict[str, Any], Any]] = [
    (
        {"schedule": "cosine", "num_warmup_steps": 7},
        lambda o: CosineAnnealingLR(o, 50 - 7 + 1, 7, start_lr=1e-7, final_lr=1e-5),
    ),
    ({"schedule": "myle", "num_warmup_steps": 7, "start_lr": 1e-6}, lambda o: MyleLR(o, 7, start_lr=1e-6)),
    (
        {"schedule": "polynomial", "num_warmup_steps": 7, "final_lr": 2e-5},
        lambda o: PolynomialDecayLR(o, 50, 7, power=200, start_lr=1e-7, final_lr=2e-5),
    ),
    (
        {"schedule": "wsd", "start_lr": 1e-6},
        lambda o: TriStageLR(o, 50, (0.1, 0.4, 0.5), start_lr_scale=1e-6 / PEAK, final_lr_scale=1e-5 / PEAK),
    ),
    (
        {"schedule": "wsd", "stage_ratios": (0.0, 0.33, 0.67)},
        lambda o: TriStageLR(o, 50, (0.0, 0.33, 0.67), start_lr_scale=0.0, final_lr_scale=1e-5 / PEAK),
    ),
]


@pytest.mark.parametrize(("fields", "theirs"), CASES, ids=[str(fields) for fields, _ in CASES])
def test_rates_are_those_of_fairseq2s_components_with_the_numbers_worked_out(fields: dict, theirs: Any) -> None:
    found = rates(create(MetaLRConfig(**fields), 50), 60)
    assert found == pytest.approx(rates(theirs(optimizer()), 60), rel=1e-12)


def test_the_first_step_has_the_start_rate_and_the_peak_comes_after_the_warmup() -> None:
    for schedule in ("cosine", "myle", "polynomial"):
        config = MetaLRConfig(schedule=schedule, num_warmup_steps=10, start_lr=1e-6)  # type: ignore[arg-type]
        assert lr_at(0, PEAK, 100, config) == 1e-6
        assert lr_at(5, PEAK, 100, config) == pytest.approx((1e-6 + PEAK) / 2)
        assert lr_at(10, PEAK, 100, config) == PEAK


def test_the_last_step_of_a_cosine_is_not_quite_at_the_final_rate() -> None:
    config = MetaLRConfig(schedule="cosine", num_warmup_steps=10)
    assert 1e-5 < lr_at(99, PEAK, 100, config) < 1.01e-5 + PEAK * (1 + math.cos(math.pi * 89 / 91)) / 2
    assert lr_at(101, PEAK, 100, config) == PEAK


def test_noop_keeps_the_optimizers_rate() -> None:
    assert rates(create(MetaLRConfig(schedule="noop"), 5), 9) == [PEAK] * 9


def test_stages_of_wsd_are_whole_steps_rounded_down() -> None:
    config = MetaLRConfig(schedule="wsd", start_lr=0.0, final_lr=PEAK / 16)
    found = [lr_at(step, PEAK, 19, config) for step in range(19)]
    assert found[0] == 0.0 and found[1:9] == [PEAK] * 8
    assert found[16] == pytest.approx(PEAK / 16 ** (8 / 9)) and found[17:] == [PEAK / 16] * 2


def test_a_resumed_run_goes_on_and_one_made_longer_follows_the_longer_schedule() -> None:
    config = MetaLRConfig(schedule="cosine", num_warmup_steps=2)
    first = create(config, 10)
    whole = rates(create(config, 10), 10)
    rates(first, 4)
    for num_steps, expected in ((10, whole[5]), (20, lr_at(5, PEAK, 20, config))):
        again = create(config, num_steps)
        again.load_state_dict(first.state_dict())
        again.optimizer.step()
        again.step()
        assert again.get_last_lr() == [expected]


def test_a_recipes_plain_data_becomes_the_config() -> None:
    converter = get_dependency_resolver().resolve(ValueConverter)
    data = {"schedule": "wsd", "final_lr": 1e-6, "stage_ratios": [0.2, 0.3, 0.5]}
    expected = MetaLRConfig(schedule="wsd", final_lr=1e-6, stage_ratios=(0.2, 0.3, 0.5))
    assert converter.structure(data, MetaLRConfig) == expected


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"schedule": "cosin"}, r'schedule`: .*Did you mean "cosine"'),
        ({"schedule": "cosine", "num_warmup_steps": 50}, r"warmup_steps` \(50\) must be below `regime.num_steps` \(50"),
        ({"schedule": "myle", "num_warmup_steps": 60}, r"num_warmup_steps` \(60\) must be below"),
        ({"schedule": "polynomial"}, r"num_warmup_steps` \(800\) must be below"),
        ({"schedule": "myle", "num_warmup_steps": 0}, "num_warmup_steps` must be at least 1"),
        ({"schedule": "cosine", "num_warmup_steps": -1}, "num_warmup_steps` must be at least 0"),
        ({"schedule": "wsd", "num_warmup_steps": 5}, "num_warmup_steps` has no meaning for the schedule wsd"),
        ({"schedule": "noop", "start_lr": 1e-7}, "start_lr` has no meaning"),
        ({"schedule": "myle", "num_warmup_steps": 5, "final_lr": 0.0}, "final_lr` has no meaning"),
        ({"schedule": "noop", "stage_ratios": (0.1, 0.4, 0.5)}, "stage_ratios` has no meaning"),
        ({"schedule": "cosine", "num_warmup_steps": 5, "start_lr": -1.0}, "start_lr` must be at least 0"),
        ({"schedule": "wsd", "final_lr": 0.0}, "final_lr` must be above 0"),
        ({"schedule": "wsd", "stage_ratios": (0.1, 0.4, 0.6)}, "stage_ratios` must be three shares"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_field(fields: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        create(MetaLRConfig(**fields), 50)


def test_a_run_without_a_length_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"regime\.num_steps.*lcm_meta_lr"):
        create(MetaLRConfig(schedule="noop"), None)
