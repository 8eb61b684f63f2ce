"""Draws follow their probabilities, and the loss is what its formula says."""

from __future__ import annotations

import pytest
import torch

from lexalcm.diffusion.objective import Objective, ObjectiveConfig
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.diffusion.timestep_density import TimestepDensityConfig, timestep_probabilities
from lexalcm.errors import ConfigError

SCHEDULE = NoiseSchedule(ScheduleConfig(num_steps=20))
CPU = torch.device("cpu")


def objective(**fields: object) -> Objective:
    return Objective(ObjectiveConfig(**fields), SCHEDULE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("density", "draw"),
    [
        (TimestepDensityConfig(), lambda n: torch.rand(n)),
        (TimestepDensityConfig(kind="beta", a=1.0, b=0.5), lambda n: 1 - torch.rand(n) ** 2),
        (TimestepDensityConfig(kind="beta", a=0.7, b=0.4), lambda n: torch.distributions.Beta(0.7, 0.4).sample((n,))),
        (TimestepDensityConfig(kind="beta", a=3.0, b=2.0), lambda n: torch.distributions.Beta(3.0, 2.0).sample((n,))),
        (
            TimestepDensityConfig(kind="logit_normal", mean=0.5, std=1.2),
            lambda n: torch.sigmoid(0.5 + 1.2 * torch.randn(n)),
        ),
    ],
    ids=["uniform", "high-noise", "beta-poles", "beta-hill", "logit-normal"],
)
def test_probabilities_are_the_density_over_each_interval(density: TimestepDensityConfig, draw) -> None:
    torch.manual_seed(0)
    count = 400_000
    share = torch.histc(draw(count), bins=20, min=0, max=1) / count
    torch.testing.assert_close(timestep_probabilities(density, 20).float(), share, rtol=0, atol=4e-3)


def test_high_noise_density_has_its_closed_form() -> None:
    edges = torch.arange(21, dtype=torch.float64) / 20
    expected = (1 - (1 - edges).sqrt()).diff()
    torch.testing.assert_close(timestep_probabilities(TimestepDensityConfig(kind="beta", a=1, b=0.5), 20), expected)


def test_drawn_timesteps_follow_the_probabilities_and_span_the_trained_ones() -> None:
    torch.manual_seed(0)
    one = objective(timestep_density=TimestepDensityConfig(kind="beta", a=1.0, b=0.5), guidance_dropout=0.3)
    draw = one.draw(torch.Size((200_000,)), 1, device=CPU)
    share = torch.bincount(draw.timesteps, minlength=21)[1:] / 200_000
    assert draw.timesteps.min() == 1 and draw.timesteps.max() == 20
    torch.testing.assert_close(share.double(), one.probabilities, rtol=0, atol=4e-3)
    assert draw.dropped is not None and draw.dropped.float().mean() == pytest.approx(0.3, abs=5e-3)
    assert draw.noise.mean() == pytest.approx(0, abs=0.01) and draw.noise.std() == pytest.approx(1, abs=0.01)


def test_several_draws_have_their_own_timesteps_and_share_what_is_dropped() -> None:
    draw = objective(noise_draws=3).draw(torch.Size((50,)), 4, device=CPU)
    assert draw.timesteps.shape == (3, 50) and draw.noise.shape == (3, 50, 4)
    assert draw.dropped is not None and draw.dropped.shape == (50,)
    assert not torch.equal(draw.timesteps[0], draw.timesteps[1])


def test_meta_compatible_dropping_takes_a_fixed_number_of_later_positions_batch_wide() -> None:
    config = ObjectiveConfig(guidance_dropout=0.25, guidance_drop_rule="meta_compatible")
    dropped = Objective(config, SCHEDULE).draw(torch.Size((3, 11)), 2, device=CPU).dropped
    assert dropped is not None
    assert torch.equal(dropped[0], dropped[2]) and dropped[0].sum() == 2 and not dropped[0, 0]
    with pytest.raises(ConfigError, match="pack: false"):
        Objective(config, SCHEDULE).draw(torch.Size((11,)), 2, device=CPU)


def test_the_loss_sums_target_positions_and_averages_channels_and_draws() -> None:
    predicted, clean = torch.randn(2, 5, 3), torch.randn(5, 3)
    timesteps = torch.randint(1, 21, (2, 5))
    targets = torch.tensor([True, False, True, True, False])
    terms = objective(noise_draws=2).loss(predicted, clean, timesteps, targets)
    expected = (predicted - clean).square().mean(-1).mean(0)[targets].sum()
    torch.testing.assert_close(terms.loss_sum, expected)
    torch.testing.assert_close(terms.squared_error, (predicted - clean).square().mean(-1))


def test_clamped_snr_weights_average_one_over_the_drawn_timesteps() -> None:
    density = TimestepDensityConfig(kind="beta", a=1.0, b=0.5)
    one = objective(timestep_density=density, weighting="clamp_snr", max_gamma=4.0)
    timesteps = torch.arange(1, 21)
    weights = torch.stack(
        [one.loss(torch.ones(1, 1), torch.zeros(1, 1), t.reshape(1), torch.tensor([True])).loss_sum for t in timesteps]
    )
    assert (weights.double() * one.probabilities).sum() == pytest.approx(1.0, abs=1e-5)
    snr = SCHEDULE.snr()[1:].clamp(max=4.0)
    torch.testing.assert_close(weights.double() / weights.sum(), snr / snr.sum(), rtol=1e-5, atol=1e-7)


def test_batch_normalised_weights_are_zero_and_finite_when_all_drew_pure_noise() -> None:
    one = objective(weighting="clamp_snr_meta")
    terms = one.loss(torch.ones(3, 1), torch.zeros(3, 1), torch.tensor([20, 20, 20]), torch.ones(3, dtype=torch.bool))
    assert terms.loss_sum == 0.0


def test_the_loss_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective().loss(
            torch.randn(4, 3).bfloat16(), torch.randn(4, 3), torch.ones(4).long(), torch.ones(4).bool()
        )
    assert terms.loss_sum.dtype == torch.float32


def test_combinations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="zero terminal SNR"):
        Objective(ObjectiveConfig(), SCHEDULE, "epsilon")
    with pytest.raises(ConfigError, match="residual"):
        Objective(ObjectiveConfig(), SCHEDULE, "v_prediction", "residual")
    for fields, named in (
        ({"noise_draws": 0}, "noise_draws"),
        ({"guidance_dropout": 1.0}, "guidance_dropout"),
        ({"min_gamma": 6.0}, "min_gamma"),
        ({"weighting": "snr"}, "weighting"),
        ({"timestep_density": TimestepDensityConfig(kind="meta_beta", b=0.5)}, "meta_beta"),
    ):
        with pytest.raises(ConfigError, match=named):
            objective(**fields)
