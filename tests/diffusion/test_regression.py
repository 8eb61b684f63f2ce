"""The objective of models that predict without noise."""

from __future__ import annotations

import pytest
import torch

from lexalcm.diffusion.parametrization import add_noise
from lexalcm.diffusion.regression import Regression, RegressionConfig
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import ConfigError
from lexalcm.layout import DocumentLayout

SCHEDULE = NoiseSchedule(ScheduleConfig(num_steps=20))


def test_a_draw_takes_no_random_numbers_and_no_room() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw = Regression(RegressionConfig(), SCHEDULE).draw(DocumentLayout([4, 3], source_lengths=[2, 1]), 1000)
    assert torch.equal(torch.get_rng_state(), before)
    assert draw.timesteps.tolist() == [20] * 4 and draw.dropped is None
    assert draw.noise.shape == (4, 1000) and draw.noise.untyped_storage().nbytes() == 4
    noisy = add_noise(torch.randn(4, 1000), draw.noise, SCHEDULE.alpha_cumprod(draw.timesteps))
    assert torch.isfinite(noisy).all()


@pytest.mark.parametrize("error", ["mean_square", "sum_square", "root_sum_square"])
def test_the_loss_sums_the_chosen_error_over_targets(error: str) -> None:
    predicted, clean = torch.randn(5, 3), torch.randn(5, 3)
    targets = torch.tensor([True, False, True, True, False])
    terms = Regression(RegressionConfig(error=error), SCHEDULE).loss(predicted, clean, torch.zeros(5).long(), targets)
    squares = (predicted - clean).square()
    expected = {
        "mean_square": squares.mean(-1),
        "sum_square": squares.sum(-1),
        "root_sum_square": (squares.sum(-1) + 1e-5).sqrt(),
    }[error]
    torch.testing.assert_close(terms.loss_sum, expected[targets].sum())
    torch.testing.assert_close(terms.squared_error, squares.mean(-1))


def test_an_unknown_error_is_refused_with_the_near_match() -> None:
    with pytest.raises(ConfigError, match='Did you mean "sum_square"'):
        Regression(RegressionConfig(error="sum_squares"), SCHEDULE)  # type: ignore[arg-type]
