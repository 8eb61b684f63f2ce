"""Names of fit methods: what they stand for, what a card remembers of them, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lexalcm.errors import ConfigError
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.pipelines.fit_rule import FIT_METHODS, FitRule, fit_rule, reference_rule


def test_meta_compatible_is_the_reference_without_any_option() -> None:
    rule = fit_rule("meta_compatible")
    assert rule == FitRule(method="gaussian_robust", quantiles=(0.25, 0.75), as_reference=True)
    assert rule.scale(np.array([0.3747])) == pytest.approx([1.0], rel=1e-3)
    assert fit_rule("meta_compatible", with_fft=True, clip_proba=1e-4) == reference_rule(
        NormalizerConfig(with_fft=True, clip_proba=1e-4)
    )


def test_gaussian_scales_are_the_deviation_of_a_gaussian() -> None:
    for low, high, spread in ((25.0, 75.0, 1.3489795), (0.25, 0.75, 0.3746548), (10.0, 97.5, 3.2415155)):
        rule = fit_rule("gaussian_robust", quantiles=(low, high))
        assert rule.scale(np.array([2.0 * spread])) == pytest.approx([2.0], rel=1e-6)


@pytest.mark.parametrize("method", FIT_METHODS)
@pytest.mark.parametrize("options", [{}, {"with_fft": True, "clip_proba": 0.01}])
def test_a_card_remembers_a_rule_in_the_references_words(method: str, options: dict[str, Any]) -> None:
    rule = fit_rule(method, **options)
    config = rule.recorded_config(12)
    config.check()
    assert config.dim == 12
    again = reference_rule(config)
    assert (again.with_fft, again.clip_proba) == (rule.with_fft, rule.clip_proba)
    # The reference's quartiles and ours differ in the fifth digit of 0.7413.
    assert again.scale(np.array([3.0])) == pytest.approx(rule.scale(np.array([3.0])), rel=1e-5)
    if method != "standard":
        assert again.quantiles == rule.quantiles


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("robusst", {}, 'Did you mean "robust"'),
        ("robust", {"quantiles": (10.0, 90.0)}, "gaussian_robust and range, not to robust"),
        ("standard", {"quantiles": (25.0, 75.0)}, "not to standard"),
        ("meta_compatible", {"quantiles": (25.0, 75.0)}, "not to meta_compatible"),
        ("range", {"quantiles": (75.0, 25.0)}, "ascending percentages"),
        ("range", {"quantiles": (-1.0, 25.0)}, "ascending percentages"),
        ("gaussian_robust", {"quantiles": (0.0, 75.0)}, "no smallest and no largest"),
        ("gaussian_robust", {"quantiles": (25.0, 100.0)}, "no smallest and no largest"),
        ("robust", {"clip_proba": 0.5}, "clip_proba must lie between 0 and 0.5"),
        ("robust", {"clip_proba": 0.0}, "clip_proba must lie between 0 and 0.5"),
    ],
)
def test_what_a_method_cannot_honour_is_refused(method: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fit_rule(method, **options)


def test_smallest_and_largest_value_are_a_range() -> None:
    fit_rule("range", quantiles=(0.0, 100.0))
