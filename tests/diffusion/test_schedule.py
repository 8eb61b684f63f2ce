"""Tables against closed forms; the golden cases hold them to the reference."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import ConfigError


def test_cosine_has_a_row_more_than_steps_and_ends_at_exactly_zero() -> None:
    schedule = NoiseSchedule(ScheduleConfig(num_steps=100))
    assert len(schedule.table) == 101 and schedule.table[-1] == 0.0
    assert (schedule.first_timestep, schedule.last_timestep, schedule.num_timesteps) == (1, 100, 100)
    assert schedule.table[40] == pytest.approx(math.cos((0.4 + 0.008) / 1.008 * math.pi / 2) ** 2)
    assert schedule.has_zero_terminal_snr


@pytest.mark.parametrize("kind", ["squaredcos_cap_v2", "linear", "scaled_linear", "sigmoid"])
@pytest.mark.parametrize("rescaled", [True, False])
def test_other_tables_train_every_row_and_fall(kind: str, rescaled: bool) -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind=kind, num_steps=50, rescale_zero_terminal_snr=rescaled))  # type: ignore[arg-type]
    assert (schedule.first_timestep, schedule.last_timestep, len(schedule.table)) == (0, 49, 50)
    assert (schedule.table.diff() <= 0).all()
    assert schedule.has_zero_terminal_snr == rescaled


def test_rescaling_keeps_the_first_row() -> None:
    plain, rescaled = (
        NoiseSchedule(ScheduleConfig(kind="linear", num_steps=100, rescale_zero_terminal_snr=r)).table
        for r in (False, True)
    )
    assert rescaled[0] == pytest.approx(plain[0].item())


def test_look_up_keeps_shape_and_is_float32() -> None:
    schedule = NoiseSchedule(ScheduleConfig(num_steps=10))
    timesteps = torch.tensor([[0, 5], [10, 1]])
    found = schedule.alpha_cumprod(timesteps)
    assert found.dtype == torch.float32 and torch.equal(found, schedule.table.float()[timesteps])
    assert torch.equal(copy.deepcopy(schedule).table, schedule.table)


def test_a_table_is_real_even_where_the_model_is_not() -> None:
    with torch.device("meta"):
        assert NoiseSchedule(ScheduleConfig()).table.device.type == "cpu"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "cosin"}, r'schedule\.kind.*"cosine"'),
        ({"num_steps": 0}, r"schedule\.num_steps"),
        ({"beta_start": 0.5, "beta_end": 0.1}, r"schedule\.beta_start"),
        ({"scaled_linear_exponent": 0.0}, r"schedule\.scaled_linear_exponent"),
        ({"sigmoid_alpha": -1.0}, r"schedule\.sigmoid_alpha"),
        ({"rescale_zero_terminal_snr": True, "num_steps": 1}, r"schedule\.num_steps"),
    ],
)
def test_impossible_schedules_are_refused_by_field(fields: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        NoiseSchedule(ScheduleConfig(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "sigmoid", "sigmoid_alpha": 1000.0},
        {"kind": "sigmoid", "sigmoid_beta": float("inf")},
        {"kind": "sigmoid", "sigmoid_beta": float("inf"), "num_steps": 1},
        {"kind": "scaled_linear", "scaled_linear_exponent": 1e-3},
        {"kind": "scaled_linear", "scaled_linear_exponent": float("inf")},
    ],
)
def test_parameters_that_give_no_falling_table_are_refused(fields: dict) -> None:
    with pytest.raises(ConfigError, match=rf"alpha-bars that fall.*{fields['kind']}"):
        NoiseSchedule(ScheduleConfig(**fields))
