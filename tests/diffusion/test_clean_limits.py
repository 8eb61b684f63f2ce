"""What limits do to predictions, by hand and against a float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lexalcm.diffusion.clean_limits import CleanLimits, threshold_dynamically
from lexalcm.diffusion.grid import Step
from lexalcm.diffusion.samplers import SamplerConfig, sample
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.diffusion.solvers import SAMPLERS, ddim_step
from lexalcm.errors import ConfigError

SCHEDULE = NoiseSchedule(ScheduleConfig())


def thresholded(row: np.ndarray, ratio: float, most: float) -> np.ndarray:
    bound = min(max(np.quantile(np.abs(row), ratio), 1.0), most)
    return np.clip(row, -bound, bound) / bound


def test_without_limits_a_prediction_stays_as_it_is() -> None:
    clean = 100 * torch.randn(3, 4)
    assert CleanLimits().limit(clean) is clean


def test_clipping_holds_every_component_in_its_range() -> None:
    clean = torch.tensor([[-3.0, -0.5, 0.5, 3.0]])
    assert CleanLimits(clip_clean=0.8).limit(clean).tolist() == [[pytest.approx(x) for x in (-0.8, -0.5, 0.5, 0.8)]]


@pytest.mark.parametrize(("ratio", "most"), [(0.5, 6.0), (0.8, 1.3), (0.995, 2.0), (1.0, 6.0), (0.9, 1.0)])
def test_each_concept_is_thresholded_by_its_own_values(ratio: float, most: float) -> None:
    scales = torch.tensor([0.1, 1.0, 2.0, 9.0], dtype=torch.float64)
    clean = scales.view(2, 2, 1) * torch.randn(2, 2, 24, dtype=torch.float64)
    found = CleanLimits(dynamic_thresholding_ratio=ratio, max_threshold=most).limit(clean)
    expected = [thresholded(row, ratio, most) for row in clean.view(4, 24).numpy()]
    np.testing.assert_allclose(found.view(4, 24).numpy(), expected, rtol=1e-12)
    assert found.abs().max() == 1.0


def test_a_concept_below_1_is_not_enlarged() -> None:
    clean = torch.tensor([[0.5, -0.9]])
    assert torch.equal(threshold_dynamically(clean, 0.9, 6.0), clean)


def test_the_threshold_is_at_most_6_unless_said_otherwise() -> None:
    clean = torch.tensor([[3.0, -12.0]])
    assert CleanLimits(dynamic_thresholding_ratio=1.0).limit(clean).tolist() == [[0.5, -1.0]]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("fields", [{"clip_clean": 1.5}, {"dynamic_thresholding_ratio": 0.9, "max_threshold": 2.0}])
def test_a_sampler_steps_to_and_returns_limited_predictions(name: str, fields: dict) -> None:
    """The last step too, and what the denoiser is given stays near the limits."""
    seen: list[torch.Tensor] = []

    def overshoots(x: torch.Tensor, t: int) -> torch.Tensor:
        seen.append(x)
        return torch.full_like(x, 50.0)

    config = SamplerConfig(name=name, num_steps=20, **fields)
    found = sample(overshoots, torch.zeros(2, 3), SCHEDULE, config)
    assert torch.equal(found, CleanLimits(**fields).limit(torch.full((2, 3), 50.0)))
    if name == "dpm_solver_2m":
        assert all(x.abs().max() <= 1.5 for x in seen)


@pytest.mark.parametrize("noise_from_clipped", [False, True])
def test_ddim_estimates_the_noise_from_what_the_model_said_unless_told_otherwise(noise_from_clipped: bool) -> None:
    config = SamplerConfig(num_steps=2, clip_clean=0.5, noise_from_clipped=noise_from_clipped)
    schedule = NoiseSchedule(ScheduleConfig(kind="linear", num_steps=100))
    first, second = (float(schedule.table[t]) for t in (99, 49))
    seen: list[torch.Tensor] = []

    def double(x: torch.Tensor, t: int) -> torch.Tensor:
        seen.append(x)
        return 2.0 * x

    latents = torch.randn(4, 3, dtype=torch.float64)
    sample(double, latents, schedule, config)
    clean = (2.0 * latents).clamp(-0.5, 0.5)
    source = clean if noise_from_clipped else 2.0 * latents
    noise = (latents - first**0.5 * source) / (1 - first) ** 0.5
    torch.testing.assert_close(seen[1], second**0.5 * clean + (1 - second) ** 0.5 * noise)


def test_a_ddim_step_can_take_the_noise_of_another_prediction() -> None:
    clean, other, noisy = torch.randn(3, 5, 4, dtype=torch.float64)
    noise = (noisy - 0.3**0.5 * other) / 0.7**0.5
    found = ddim_step(clean, noisy, Step(1, 0.3, 0.6), noise_from=other)
    torch.testing.assert_close(found, 0.6**0.5 * clean + 0.4**0.5 * noise)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"clip_clean": 0.0}, r"sampler\.clip_clean` must be above 0"),
        ({"clip_clean": 1.0, "dynamic_thresholding_ratio": 0.9}, "Only one of"),
        ({"dynamic_thresholding_ratio": 0.0}, r"sampler\.dynamic_thresholding_ratio`"),
        ({"dynamic_thresholding_ratio": 1.1}, r"sampler\.dynamic_thresholding_ratio`"),
        ({"max_threshold": 2.0}, r"sampler\.max_threshold` needs"),
        ({"dynamic_thresholding_ratio": 0.9, "max_threshold": 0.5}, r"sampler\.max_threshold` must be at least 1,"),
        ({"noise_from_clipped": True}, r"sampler\.noise_from_clipped` needs"),
        ({"noise_from_clipped": True, "clip_clean": 1.0, "epsilon_scaling": 1.1}, r"undo `sampler\.epsilon_scaling"),
        ({"name": "dpm_solver_2m", "noise_from_clipped": True, "clip_clean": 1.0}, "clipped` belongs to.* ddim"),
    ],
)
def test_limits_that_cannot_be_honoured_are_refused_by_field(fields: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        SamplerConfig(**fields).check()


def test_another_sampler_is_not_trusted_to_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "one_call", lambda predict, latents, *_: predict(latents, 0))
    SamplerConfig(name="one_call").check()
    with pytest.raises(ConfigError, match="ddim and dpm_solver_2m, not to one_call"):
        SamplerConfig(name="one_call", clip_clean=1.0).check()
