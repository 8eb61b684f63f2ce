"""Draws follow their probabilities, and the loss is what its formula says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lexalcm.diffusion.objective import Objective, ObjectiveConfig
from lexalcm.diffusion.parametrization import PredictionType, add_noise, clean_to_noise, clean_to_velocity
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.diffusion.timestep_density import TimestepDensityConfig
from lexalcm.errors import ConfigError
from lexalcm.layout import DocumentLayout

SCHEDULE = NoiseSchedule(ScheduleConfig(num_steps=20))


def objective(**fields: object) -> Objective:
    return Objective(ObjectiveConfig(**fields), SCHEDULE)  # type: ignore[arg-type]


def test_drawn_timesteps_follow_the_probabilities_and_span_the_trained_ones() -> None:
    torch.manual_seed(0)
    one = objective(timestep_density=TimestepDensityConfig(kind="beta", a=1.0, b=0.5), guidance_dropout=0.3)
    draw = one.draw(DocumentLayout([1000] * 200), 1)
    share = torch.bincount(draw.timesteps, minlength=21)[1:] / 200_000
    assert draw.timesteps.min() == 1 and draw.timesteps.max() == 20
    torch.testing.assert_close(share.double(), one.probabilities, rtol=0, atol=4e-3)
    assert draw.dropped is not None and draw.dropped.float().mean() == pytest.approx(0.3, abs=5e-3)
    assert draw.noise.mean() == pytest.approx(0, abs=0.01) and draw.noise.std() == pytest.approx(1, abs=0.01)


def test_context_noise_is_drawn_last_and_of_the_size_asked_for() -> None:
    drawn = []
    for fields in ({}, {"context_noise": 0.5}):
        generator = torch.Generator().manual_seed(3)
        drawn.append(objective(**fields).draw(DocumentLayout([4000]), 8, generator=generator))
    without, with_noise = drawn
    assert without.context_noise is None
    assert torch.equal(without.noise, with_noise.noise)
    assert with_noise.context_noise is not None and with_noise.context_noise.shape == (4000, 8)
    assert with_noise.context_noise.std() == pytest.approx(0.5, rel=0.02)
    both = torch.stack([with_noise.noise.flatten(), with_noise.context_noise.flatten()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.02
    with pytest.raises(ConfigError, match=r"`objective\.context_noise` must be 0 or more"):
        objective(context_noise=-0.1)


def test_several_draws_have_their_own_timesteps_and_share_what_is_dropped() -> None:
    draw = objective(noise_draws=3).draw(DocumentLayout([50]), 4)
    assert draw.timesteps.shape == (3, 50) and draw.noise.shape == (3, 50, 4)
    assert draw.dropped is not None and draw.dropped.shape == (50,)
    assert not torch.equal(draw.timesteps[0], draw.timesteps[1])


META_RULE = {"guidance_dropout": 0.25, "guidance_drop_rule": "meta_compatible"}


@pytest.mark.parametrize("is_packed", [True, False])
def test_meta_compatible_dropping_takes_a_fixed_number_of_later_positions_batch_wide(is_packed: bool) -> None:
    layout = DocumentLayout([11, 4, 11], packed=is_packed)
    ever = torch.zeros(11, dtype=torch.bool)
    for _ in range(100):
        dropped = objective(**META_RULE).draw(layout, 2).dropped
        assert dropped is not None and dropped.shape == layout.positions.shape
        rows = dropped[layout.real].split([11, 4, 11])
        # (11 - 1) * 0.25 positions, counted in the longest document; the short one loses those of them that it has.
        assert torch.equal(rows[0], rows[2]) and torch.equal(rows[0][:4], rows[1]) and rows[0].sum() == 2
        ever |= rows[0]
    assert not ever[0] and ever[1:].all()


def test_meta_compatible_dropping_chooses_for_each_document_with_a_source() -> None:
    layout = DocumentLayout([14, 12, 5], source_lengths=[3, 1, 0])
    torch.manual_seed(0)
    drawn = [objective(**META_RULE).draw(layout, 2).dropped for _ in range(50)]
    rows = [d.split([11, 11, 5]) for d in drawn if d is not None]
    assert all(a.sum() == b.sum() == 2 and not a[0] and not b[0] and not c[0] for a, b, c in rows)
    assert any(not torch.equal(a, b) for a, b, _ in rows)


def test_where_nothing_is_dropped_the_rule_does_not_matter() -> None:
    assert objective(guidance_dropout=0.0, guidance_drop_rule="meta_compatible").draw(DocumentLayout([11]), 2).dropped is None


def test_noise_is_drawn_for_the_positions_that_are_predicted_and_context_noise_for_all() -> None:
    draw = objective(context_noise=0.1).draw(DocumentLayout([7, 4], source_lengths=[5, 1]), 3)
    assert draw.timesteps.shape == (5,) and draw.noise.shape == (5, 3) and draw.dropped.shape == (5,)
    assert draw.context_noise.shape == (11, 3)


def test_the_loss_sums_target_positions_and_averages_channels_and_draws() -> None:
    predicted, clean = torch.randn(2, 5, 3), torch.randn(5, 3)
    timesteps = torch.randint(1, 21, (2, 5))
    targets = torch.tensor([True, False, True, True, False])
    terms = objective(noise_draws=2).loss(predicted, clean, timesteps, targets)
    expected = (predicted - clean).square().mean(-1).mean(0)[targets].sum()
    torch.testing.assert_close(terms.loss_sum, expected)
    torch.testing.assert_close(terms.squared_error, (predicted - clean).square().mean(-1))


@pytest.mark.parametrize(("error", "expected"), [("sum_square", lambda x: x), ("root_sum_square", lambda x: (x + 1e-5).sqrt())])
def test_errors_can_be_summed_over_channels_and_rooted(error: str, expected: Callable[[Tensor], Tensor]) -> None:
    predicted, clean = torch.randn(5, 3), torch.randn(5, 3)
    timesteps, targets = torch.randint(1, 21, (5,)), torch.tensor([True, False, True, True, False])
    terms = objective(error=error).loss(predicted, clean, timesteps, targets)
    torch.testing.assert_close(terms.loss_sum, expected((predicted - clean).square().sum(-1))[targets].sum())


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


def test_batch_normalised_weights_average_one_over_the_targets_of_a_batch() -> None:
    one = objective(weighting="clamp_snr_meta", max_gamma=4.0, min_gamma=0.1)
    timesteps, targets = torch.tensor([1, 5, 12, 20]), torch.tensor([True, False, True, True])
    gamma = SCHEDULE.snr()[timesteps].clamp(0.1, 4.0)[targets]
    for n, expected in zip((0, 2, 3), gamma / gamma.mean()):
        at_one = torch.zeros(4, 1)
        at_one[n] = 1.0
        found = one.loss(at_one, torch.zeros(4, 1), timesteps, targets).loss_sum
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("timestep", [2, 18, 19])
def test_a_lone_target_weighs_one_however_little_signal_it_holds(timestep: int) -> None:
    one = objective(weighting="clamp_snr_meta")
    terms = one.loss(torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([5, timestep]), torch.tensor([False, True]))
    assert terms.loss_sum.item() == pytest.approx(1.0, rel=1e-5)


def test_batch_normalised_weights_are_zero_and_finite_when_all_drew_pure_noise() -> None:
    one = objective(weighting="clamp_snr_meta")
    terms = one.loss(torch.ones(3, 1), torch.zeros(3, 1), torch.tensor([20, 20, 20]), torch.ones(3, dtype=torch.bool))
    assert terms.loss_sum == 0.0


def test_the_loss_is_float32_under_autocast() -> None:
    predicted, clean = torch.randn(4, 3).bfloat16(), torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = objective().loss(predicted, clean, torch.ones(4).long(), torch.ones(4).bool())
    assert terms.loss_sum.dtype == terms.squared_error.dtype == torch.float32
    torch.testing.assert_close(terms.loss_sum, (predicted.float() - clean).square().mean(-1).sum())
    low = objective().loss(predicted, clean.bfloat16(), torch.ones(4).long(), torch.ones(4).bool())
    assert low.loss_sum.dtype == torch.float32


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_the_predicted_quantity(kind: PredictionType) -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind="linear", num_steps=20, beta_end=0.3))
    clean, noise, guess = torch.randn(3, 40, 5)
    timesteps = torch.randint(0, 20, (40,))
    alpha = schedule.alpha_cumprod(timesteps)
    noisy = add_noise(clean, noise, alpha)
    convert = clean_to_noise if kind == "epsilon" else clean_to_velocity
    expected = (convert(guess, noisy, alpha) - convert(clean, noisy, alpha)).square().mean(-1).sum()
    terms = Objective(ObjectiveConfig(), schedule, kind).loss(guess, clean, timesteps, torch.ones(40).bool())
    torch.testing.assert_close(terms.loss_sum, expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(terms.squared_error, (guess - clean).square().mean(-1))


@pytest.mark.parametrize("weighting", ["none", "clamp_snr", "clamp_snr_meta"])
def test_a_packed_and_a_padded_batch_have_one_loss(weighting: str) -> None:
    one = objective(weighting=weighting, noise_draws=2)
    predicted, clean = torch.randn(2, 2, 4, 3), torch.randn(2, 4, 3)
    timesteps = torch.randint(1, 21, (2, 2, 4))
    real = torch.tensor([[True, True, False, False], [True, True, True, True]])
    padded = one.loss(predicted, clean, timesteps, real)
    packed = one.loss(predicted[:, real], clean[real], timesteps[:, real], torch.ones(6).bool())
    torch.testing.assert_close(padded.loss_sum, packed.loss_sum)


def test_gradients_reach_target_positions_alone() -> None:
    predicted = torch.randn(4, 3, requires_grad=True)
    targets = torch.tensor([True, False, True, False])
    terms = objective(weighting="clamp_snr").loss(predicted, torch.zeros(4, 3), torch.full((4,), 10), targets)
    terms.loss_sum.backward()
    assert predicted.grad is not None and not terms.squared_error.requires_grad
    assert torch.equal(predicted.grad.abs().sum(-1) > 0, targets)


def test_validation_in_inference_mode_does_not_spoil_the_tables_for_training() -> None:
    schedule = NoiseSchedule(ScheduleConfig(num_steps=20))
    one = Objective(ObjectiveConfig(weighting="clamp_snr_meta"), schedule)

    def step(predicted: Tensor) -> Tensor:
        draw = one.draw(DocumentLayout([4]), 3)
        noisy = add_noise(predicted, draw.noise, schedule.alpha_cumprod(draw.timesteps))
        return one.loss(noisy, torch.zeros(4, 3), draw.timesteps, torch.ones(4).bool()).loss_sum

    with torch.inference_mode():
        step(torch.randn(4, 3))
    predicted = torch.randn(4, 3, requires_grad=True)
    step(predicted).backward()
    assert predicted.grad is not None


def test_one_seed_gives_one_draw() -> None:
    first, second = (
        objective(noise_draws=2).draw(DocumentLayout([5]), 3, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert torch.equal(first.timesteps, second.timesteps) and torch.equal(first.noise, second.noise)
    assert first.dropped is not None and second.dropped is not None and torch.equal(first.dropped, second.dropped)


def test_nothing_is_dropped_where_guidance_is_not_trained() -> None:
    assert objective(guidance_dropout=0.0).draw(DocumentLayout([5]), 3).dropped is None


def test_combinations_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="zero terminal SNR"):
        Objective(ObjectiveConfig(), SCHEDULE, "epsilon")
    steep = NoiseSchedule(ScheduleConfig(kind="sigmoid", num_steps=1000, sigmoid_alpha=9.0))
    for kind in ("epsilon", "v_prediction"):
        with pytest.raises(ConfigError, match="hold no noise"):
            Objective(ObjectiveConfig(), steep, kind)  # type: ignore[arg-type]
    Objective(ObjectiveConfig(weighting="clamp_snr"), steep, "sample")
    with pytest.raises(ConfigError, match="residual"):
        Objective(ObjectiveConfig(), SCHEDULE, "v_prediction", "residual")
    only_pure_noise = NoiseSchedule(ScheduleConfig(num_steps=1))
    with pytest.raises(ConfigError, match="every drawn timestep the weight 0"):
        Objective(ObjectiveConfig(weighting="clamp_snr"), only_pure_noise)
    Objective(ObjectiveConfig(weighting="clamp_snr", min_gamma=2.0, max_gamma=2.0), only_pure_noise)
    for fields, named in (
        ({"noise_draws": 0}, "noise_draws"),
        ({"guidance_dropout": 1.0}, "guidance_dropout"),
        ({"min_gamma": 6.0}, "min_gamma"),
        ({"max_gamma": 0.0}, "max_gamma"),
        ({"guidance_drop_rule": "meta"}, "guidance_drop_rule"),
        ({"weighting": "snr"}, "weighting"),
        ({"timestep_density": TimestepDensityConfig(kind="meta_beta", b=0.5)}, "meta_beta"),
    ):
        with pytest.raises(ConfigError, match=named):
            objective(**fields)
