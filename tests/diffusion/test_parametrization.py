"""Clean concept, noise and velocity tell the same of every noisy concept."""

from __future__ import annotations

import pytest
import torch

from lexalcm.diffusion.parametrization import (
    add_noise,
    clean_to_noise,
    clean_to_velocity,
    loss_weight,
    noise_to_clean,
    noise_to_velocity,
    to_clean,
    velocity_to_clean,
    velocity_to_noise,
)
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig

torch.manual_seed(0)
ALPHA = NoiseSchedule(ScheduleConfig()).table[1:-1]
CLEAN, NOISE = torch.randn(2, len(ALPHA), 16, dtype=torch.float64)
NOISY = add_noise(CLEAN, NOISE, ALPHA)
VELOCITY = ALPHA.sqrt()[:, None] * NOISE - (1 - ALPHA).sqrt()[:, None] * CLEAN


def test_all_six_conversions_agree_at_every_timestep() -> None:
    for found, expected in (
        (clean_to_noise(CLEAN, NOISY, ALPHA), NOISE),
        (clean_to_velocity(CLEAN, NOISY, ALPHA), VELOCITY),
        (noise_to_clean(NOISE, NOISY, ALPHA), CLEAN),
        (noise_to_velocity(NOISE, NOISY, ALPHA), VELOCITY),
        (velocity_to_clean(VELOCITY, NOISY, ALPHA), CLEAN),
        (velocity_to_noise(VELOCITY, NOISY, ALPHA), NOISE),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("output", "kind", "form"),
    [
        (CLEAN, "sample", "direct"),
        (NOISE, "epsilon", "direct"),
        (VELOCITY, "v_prediction", "direct"),
        (-VELOCITY, "sample", "residual"),
    ],
)
def test_every_kind_of_output_means_the_clean_concept(output: torch.Tensor, kind: str, form: str) -> None:
    clean = to_clean(output, NOISY, ALPHA, kind, form)  # type: ignore[arg-type]
    torch.testing.assert_close(clean, CLEAN, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("convert", "kind"), [(clean_to_noise, "epsilon"), (clean_to_velocity, "v_prediction")])
def test_the_loss_weight_turns_an_error_of_the_clean_concept_into_that_of_the_predicted_quantity(convert, kind) -> None:
    guess = CLEAN + 0.1 * torch.randn_like(CLEAN)
    own = (convert(guess, NOISY, ALPHA) - convert(CLEAN, NOISY, ALPHA)).square().mean(-1)
    torch.testing.assert_close(loss_weight(ALPHA, kind) * (guess - CLEAN).square().mean(-1), own)


@pytest.mark.parametrize(("kind", "form"), [("sample", "direct"), ("v_prediction", "direct"), ("sample", "residual")])
def test_at_pure_noise_the_clean_concept_is_still_told_by_the_output(kind: str, form: str) -> None:
    clean, noise = CLEAN[:1], NOISE[:1]
    alpha = torch.zeros(1, dtype=torch.float64)
    noisy = add_noise(clean, noise, alpha)
    assert torch.equal(noisy, noise)
    output = clean_to_velocity(clean, noisy, alpha) if kind == "v_prediction" else clean
    assert torch.equal(to_clean(output, noisy, alpha, kind, form), clean)  # type: ignore[arg-type]


def test_several_noisy_versions_of_one_concept_need_no_copies_of_it() -> None:
    noise = torch.randn(3, *CLEAN.shape, dtype=torch.float64)
    torch.testing.assert_close(add_noise(CLEAN, noise, ALPHA.expand(3, -1))[1], add_noise(CLEAN, noise[1], ALPHA))


def test_half_precision_comes_out_as_float32() -> None:
    low = [x.to(torch.bfloat16) for x in (CLEAN, NOISE, NOISY)]
    assert add_noise(low[0], low[1], ALPHA.float()).dtype == torch.float32
    assert to_clean(low[0], low[2], ALPHA.float(), "sample").dtype == torch.float32
