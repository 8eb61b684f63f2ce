"""The energy score by hand, by all pairs, and as a proper score."""

from __future__ import annotations

import pytest
import torch

from lexalcm.diffusion.scores import energy_score
from lexalcm.errors import ConfigError


def test_two_samples_and_a_point_by_hand() -> None:
    samples = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])
    truth = torch.tensor([[1.0, 0.0]])
    assert energy_score(samples, truth).tolist() == [1.0 - 0.5 * 2.0]
    assert energy_score(samples[:1], truth).tolist() == [1.0]


def test_many_samples_are_compared_in_all_pairs() -> None:
    samples, truth = torch.randn(5, 7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    pairs = torch.stack([(samples[i] - samples[j]).norm(dim=-1) for i in range(5) for j in range(5) if i != j])
    expected = (samples - truth).norm(dim=-1).mean(0) - 0.5 * pairs.mean(0)
    torch.testing.assert_close(energy_score(samples, truth), expected)


def test_the_true_spread_scores_best() -> None:
    torch.manual_seed(0)
    truth = torch.randn(2000, 4)
    score = {spread: energy_score(spread * torch.randn(4, 2000, 4), truth).mean() for spread in (0.5, 1.0, 2.0)}
    assert min(score, key=score.__getitem__) == 1.0


def test_no_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one sample"):
        energy_score(torch.zeros(0, 3, 2), torch.zeros(3, 2))
