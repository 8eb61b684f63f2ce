"""Samplers on targets whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lexalcm.diffusion.grid import inference_timesteps
from lexalcm.diffusion.guidance import guide
from lexalcm.diffusion.samplers import SAMPLERS, SamplerConfig, SamplingError, sample
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.diffusion.scores import energy_score
from lexalcm.errors import ConfigError

PRE1 = NoiseSchedule(ScheduleConfig())
META = NoiseSchedule(ScheduleConfig(kind="squaredcos_cap_v2", num_steps=100, rescale_zero_terminal_snr=True))
MEAN, VARIANCE = 1.3, 0.25


def gaussian_denoiser(schedule: NoiseSchedule):
    """E[x0 | x_t] for x0 ~ N(MEAN, VARIANCE)."""

    def denoise(x: Tensor, t: int) -> Tensor:
        a = float(schedule.table[t])
        return MEAN + a**0.5 * VARIANCE / (a * VARIANCE + 1 - a) * (x - a**0.5 * MEAN)

    return denoise


def error(name: str, num_steps: int) -> float:
    """Distance to the exact solution of the flow, which maps N(0, 1) to the target linearly."""
    schedule = NoiseSchedule(ScheduleConfig(num_steps=4096))
    latents = torch.linspace(-2, 2, 9).unsqueeze(-1)
    config = SamplerConfig(name=name, num_steps=num_steps)  # type: ignore[arg-type]
    found = sample(gaussian_denoiser(schedule), latents, schedule, config)
    return float((found - (MEAN + math.sqrt(VARIANCE) * latents)).abs().max())


def test_measured_orders_of_convergence() -> None:
    order = {name: math.log2(error(name, 8) / error(name, 32)) / 2 for name in SAMPLERS}
    assert order["dpm_solver_2m"] >= 1.8
    assert math.log2(error("ddim", 32) / error("ddim", 128)) / 2 >= 0.9


@pytest.mark.parametrize("num_steps", range(4, 13))
def test_the_second_order_solver_is_never_worse_than_ddim(num_steps: int) -> None:
    assert error("dpm_solver_2m", num_steps) <= error("ddim", num_steps)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", [PRE1, META], ids=["pre1", "meta"])
def test_an_oracle_is_reached_by_every_number_of_steps(name: str, schedule: NoiseSchedule) -> None:
    truth = torch.randn(3, 4)
    for num_steps in range(1, 61):
        config = SamplerConfig(name=name, num_steps=num_steps)  # type: ignore[arg-type]
        assert torch.equal(sample(lambda x, t: truth, torch.randn(3, 4), schedule, config), truth)


@pytest.mark.parametrize("schedule", [PRE1, META], ids=["pre1", "meta"])
def test_steps_asked_are_steps_run_from_pure_noise_on(schedule: NoiseSchedule) -> None:
    for num_steps in range(1, 101):
        seen: list[int] = []
        sample(lambda x, t: seen.append(t) or x, torch.zeros(1, 2), schedule, SamplerConfig(num_steps=num_steps))  # type: ignore[func-returns-value]
        assert len(seen) == num_steps and seen[0] == schedule.last_timestep
        assert seen == sorted(set(seen), reverse=True) and seen[-1] >= schedule.first_timestep


@pytest.mark.parametrize("num_steps", [0, -3, 101])
def test_impossible_numbers_of_steps_are_refused_with_the_range(num_steps: int) -> None:
    with pytest.raises(ConfigError, match="between 1 and 100"):
        inference_timesteps(PRE1, num_steps)


def test_metas_grid_keeps_its_own_name_and_count() -> None:
    assert len(inference_timesteps(META, 40)) == 40
    assert len(inference_timesteps(META, 40, "meta_trailing")) == 50
    assert inference_timesteps(META, 10)[0] == 99 and inference_timesteps(META, 10, "linspace")[-1] == 0


def test_a_step_on_bfloat16_predictions_stays_float32() -> None:
    found = sample(lambda x, t: x.bfloat16(), torch.randn(2, 3).bfloat16(), PRE1, SamplerConfig(num_steps=5))
    assert found.dtype == torch.float32


def test_what_is_not_finite_stops_with_its_step() -> None:
    def breaks(x: Tensor, t: int) -> Tensor:
        return torch.full_like(x, float("inf")) if t < 60 else x

    with pytest.raises(SamplingError, match=r"step 6 of 10 \(timestep 50\)"):
        sample(breaks, torch.randn(2, 3), PRE1, SamplerConfig(num_steps=10))


def test_guidance_skips_pure_noise_and_doubles_the_other_calls() -> None:
    with_context, without = [], []
    sample(
        lambda x, t: with_context.append(t) or 0.5 * x,  # type: ignore[func-returns-value]
        torch.randn(2, 3),
        PRE1,
        SamplerConfig(num_steps=8, guidance_scale=3.0, guidance_rescale=0.7),
        unconditional=lambda x, t: without.append(t) or 0.4 * x,  # type: ignore[func-returns-value]
    )
    assert without == with_context[1:] and with_context[0] == 100


def test_guidance_of_one_changes_nothing_and_rescaling_restores_the_spread() -> None:
    conditional, other, noisy = torch.randn(3, 5, 64, dtype=torch.float64)
    alpha = torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(guide(conditional, other, noisy, alpha, scale=1.0, rescale=0.0), conditional)
    guided = guide(conditional, other, noisy, alpha, scale=3.0, rescale=1.0)
    noise, own = ((noisy - alpha.sqrt() * x) / (1 - alpha).sqrt() for x in (guided, conditional))
    torch.testing.assert_close(noise.std(-1), own.std(-1))


def test_ancestral_noise_is_taken_from_the_caller_and_ends_before_the_last_step() -> None:
    asked: list[int] = []

    def noise(number: int) -> Tensor:
        asked.append(number)
        return torch.zeros(2, 3)

    sample(lambda x, t: 0.5 * x, torch.randn(2, 3), PRE1, SamplerConfig(num_steps=6, eta=1.0), variance_noise=noise)
    assert asked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "fields",
    [{"name": "dddim"}, {"eta": 1.5}, {"clip_noise": 0.0}, {"guidance_rescale": 2.0}, {"name": "dpm_solver_2m", "eta": 0.5}],
)
def test_settings_that_cannot_be_honoured_are_refused(fields: dict) -> None:
    with pytest.raises(ConfigError, match="sampler"):
        SamplerConfig(**fields).check()


def test_energy_score_by_hand() -> None:
    samples = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])
    truth = torch.tensor([[1.0, 0.0]])
    assert energy_score(samples, truth).tolist() == [1.0 - 0.5 * 2.0]
    assert energy_score(samples[:1], truth).tolist() == [1.0]


def test_energy_score_of_many_equals_all_pairs() -> None:
    samples, truth = torch.randn(5, 7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    pairs = torch.stack([(samples[i] - samples[j]).norm(dim=-1) for i in range(5) for j in range(5) if i != j])
    expected = (samples - truth).norm(dim=-1).mean(0) - 0.5 * pairs.mean(0)
    torch.testing.assert_close(energy_score(samples, truth), expected)
