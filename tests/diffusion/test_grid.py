"""Which timesteps are visited, by hand and against the formulas they come from."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import get_args

import pytest
import torch

from lexalcm.diffusion.grid import Spacing, inference_timesteps, plan_steps
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import ConfigError

PRE1 = NoiseSchedule(ScheduleConfig())
META = NoiseSchedule(ScheduleConfig(kind="squaredcos_cap_v2", num_steps=100, rescale_zero_terminal_snr=True))
OPEN_ENDED = NoiseSchedule(ScheduleConfig(kind="linear", num_steps=100))
SPACINGS: tuple[Spacing, ...] = get_args(Spacing)
FROM_NOISE = pytest.mark.parametrize("spacing", ["trailing", "dense_ends"])


@FROM_NOISE
@pytest.mark.parametrize("schedule", [PRE1, META], ids=["pre1", "meta"])
def test_as_many_as_asked_are_given_from_pure_noise_on(schedule: NoiseSchedule, spacing: Spacing) -> None:
    for num_steps in range(1, 101):
        steps = inference_timesteps(schedule, num_steps, spacing)
        assert len(set(steps)) == num_steps and steps == sorted(steps, reverse=True)
        assert steps[0] == schedule.last_timestep and steps[-1] >= schedule.first_timestep


def test_trailing_by_hand() -> None:
    assert inference_timesteps(PRE1, 1) == [100]
    assert inference_timesteps(PRE1, 3) == [100, 67, 33]
    assert inference_timesteps(PRE1, 40)[:7] == [100, 98, 95, 93, 90, 88, 85]
    assert inference_timesteps(PRE1, 100) == list(range(100, 0, -1))
    assert inference_timesteps(META, 10) == list(range(99, 0, -10))


def test_trailing_is_never_further_than_half_a_step_from_equal_spacing() -> None:
    for num_steps in range(1, 101):
        found = inference_timesteps(PRE1, num_steps)
        assert all(abs(t - (100 - k * 100 / num_steps)) <= 0.5 for k, t in enumerate(found))


def test_dense_ends_by_hand() -> None:
    assert inference_timesteps(PRE1, 1, "dense_ends") == [100]
    assert inference_timesteps(PRE1, 2, "dense_ends") == [100, 1]
    # A quarter of the way: 1 + 99 (0.75 (1 + cos(pi / 4)) / 2 + 0.25 * 0.75) = 82.94.
    assert inference_timesteps(PRE1, 5, "dense_ends") == [100, 83, 50, 18, 1]
    assert inference_timesteps(PRE1, 10, "dense_ends") == [100, 95, 86, 73, 58, 43, 28, 15, 6, 1]
    assert inference_timesteps(META, 10, "dense_ends") == [t - 1 for t in (100, 95, 86, 73, 58, 43, 28, 15, 6, 1)]


def test_dense_ends_steps_least_at_both_ends_however_many_timesteps_are_trained() -> None:
    for trained in (100, 1000, 4096):
        schedule = NoiseSchedule(ScheduleConfig(num_steps=trained))
        for num_steps in (5, 8, 10, 20):
            steps = inference_timesteps(schedule, num_steps, "dense_ends")
            sizes = [a - b for a, b in pairwise(steps)]
            assert steps[-1] == round(trained / 100)
            assert sizes[(num_steps - 1) // 2] > 1.5 * max(sizes[0], sizes[-1])


def test_metas_spacings_by_their_formulas() -> None:
    for num_steps in range(1, 101):
        stride = 100 // num_steps
        found = {spacing: inference_timesteps(META, num_steps, spacing) for spacing in SPACINGS}
        assert found["meta_trailing"] == torch.arange(99, -1, -stride).tolist()
        assert len(found["meta_trailing"]) == len(found["leading"]) == math.ceil(100 / stride)
        assert found["leading"] == torch.arange(0, 100, stride).flip(0).tolist()
        spread = torch.linspace(0, 99, num_steps, dtype=torch.float64)
        assert found["linspace"] == spread.long().flip(0).tolist()
    assert inference_timesteps(META, 40, "meta_trailing") == list(range(99, 0, -2))
    assert inference_timesteps(META, 4, "linspace") == [99, 66, 33, 0]
    assert inference_timesteps(META, 1, "linspace") == [0]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", [PRE1, META], ids=["pre1", "meta"])
def test_one_and_all_steps_work_and_what_lies_outside_is_refused_with_the_range(
    schedule: NoiseSchedule, spacing: Spacing
) -> None:
    everything = list(range(schedule.last_timestep, schedule.first_timestep - 1, -1))
    assert len(inference_timesteps(schedule, 1, spacing)) == 1
    assert inference_timesteps(schedule, 100, spacing) == everything
    for num_steps in (101, 0, -3):
        with pytest.raises(ConfigError, match=rf"between 1 and 100.*is {num_steps}\."):
            inference_timesteps(schedule, num_steps, spacing)


def test_an_unknown_spacing_is_refused_with_a_near_match() -> None:
    with pytest.raises(ConfigError, match='Did you mean "trailing"'):
        inference_timesteps(PRE1, 4, "trailling")  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", [PRE1, META], ids=["pre1", "meta"])
def test_a_start_short_of_pure_noise_is_warned_of(schedule: NoiseSchedule) -> None:
    with pytest.warns(UserWarning, match="spacing: leading.*`trailing` starts at"):
        plan_steps(schedule, 10, "leading")


@pytest.mark.parametrize(
    ("schedule", "spacing"),
    [(PRE1, "trailing"), (PRE1, "dense_ends"), (META, "meta_trailing"), (OPEN_ENDED, "leading")],
)
def test_a_start_that_loses_nothing_is_not_warned_of(schedule: NoiseSchedule, spacing: Spacing) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_steps(schedule, 10, spacing)
