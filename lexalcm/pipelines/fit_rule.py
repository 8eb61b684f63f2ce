"""Which statistics a normalizer gets: methods of fitting by name, and what each makes of quantiles or moments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final, Literal, get_args

import numpy as np

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.models.normalizer.config import NormalizationMethod, NormalizerConfig

FitMethod = Literal["robust", "standard", "gaussian_robust", "range"]

META_COMPATIBLE: Final = "meta_compatible"

FIT_METHODS: Final = (*get_args(FitMethod), META_COMPATIBLE)
"""Names that :func:`fit_rule` knows."""

IQR_TO_DEVIATION: Final = 0.7413
"""The standard deviation of a Gaussian with interquartile range 1."""

QUARTILES: Final = (25.0, 75.0)

_REFERENCE_METHODS: Final[dict[NormalizationMethod, FitMethod]] = {
    "standard": "standard",
    "robust": "range",
    "gaussian_robust": "gaussian_robust",
}
"""By the reference release's names, whose ``robust`` does not make a standard deviation of the range."""


@dataclass(frozen=True, kw_only=True)
class FitRule:
    """How center, scale and clip bounds follow from data."""

    method: FitMethod = "robust"
    """``robust``: median and 0.7413 times the interquartile range. ``standard``: mean and population standard
    deviation. ``gaussian_robust``: median and the range between two quantiles, divided by that of a standard Gaussian.
    ``range``: median and that range itself."""

    quantiles: tuple[float, float] = QUARTILES
    """The quantiles of ``gaussian_robust`` and ``range``, in percent."""

    with_fft: bool = False
    """Whether the Fourier transform of concepts is what gets normalised."""

    clip_proba: float | None = None
    """If set, normalised values are clamped at this and the opposite quantile, as shares from 0 to 1."""

    as_reference: bool = False
    """Whether a dimension without spread gets what scikit-learn, and so the reference release, would give it."""

    @property
    def name(self) -> str:
        return META_COMPATIBLE if self.as_reference else self.method

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        if self.method not in get_args(FitMethod):
            raise ConfigError(f"method: {unknown_name('method of fitting', str(self.method), FIT_METHODS)}")
        low, high = self.quantiles
        if not 0.0 <= low < high <= 100.0:
            raise ConfigError(f"quantiles must be two ascending percentages, say 25 75, but are {low:g} {high:g}.")
        if self.method == "gaussian_robust" and (low == 0.0 or high == 100.0):
            raise ConfigError("quantiles must lie between 0 and 100: a Gaussian has no smallest and no largest value.")
        if self.clip_proba is not None and not 0.0 < self.clip_proba < 0.5:
            raise ConfigError(f"clip_proba must lie between 0 and 0.5, but is {self.clip_proba!r}.")

    def scale(self, spread: np.ndarray) -> np.ndarray:
        """From the standard deviation or the range between quantiles, ``[C]``."""
        if self.method == "robust":
            return IQR_TO_DEVIATION * spread
        if self.method == "gaussian_robust":
            low, high = (NormalDist().inv_cdf(percent / 100.0) for percent in self.quantiles)
            return spread / (high - low)
        return spread.copy()

    def recorded_config(self, dim: int) -> NormalizerConfig:
        """The configuration that a card keeps, in the names and units of the reference release."""
        low, high = self.quantiles
        method: NormalizationMethod = "gaussian_robust" if self.method == "robust" else "robust"
        if self.method in ("standard", "gaussian_robust"):
            method = self.method  # type: ignore[assignment]
        config = NormalizerConfig(
            dim=dim, clip_proba=self.clip_proba, with_fft=self.with_fft, normalization_method=method
        )
        return config if method == "standard" else replace(config, quantile_min=low, quantile_max=high)


def fit_rule(
    method: str = "robust",
    *,
    quantiles: tuple[float, float] | None = None,
    with_fft: bool = False,
    clip_proba: float | None = None,
) -> FitRule:
    """Looks a method up by name.

    ``meta_compatible`` is what the reference release does unless told otherwise: ``gaussian_robust`` between the 0.25th
    and the 0.75th *percentile*, since its defaults 0.25 and 0.75 are fractions that it takes for percentages. Unlike
    its script, which takes every fifth sentence and stops after a million, a fit here sees them all.

    :raises ConfigError: There is no such method, or it cannot honour what is asked.
    """
    if method not in FIT_METHODS:
        raise ConfigError(f"method: {unknown_name('method of fitting', method, FIT_METHODS)}")
    if quantiles is not None and method not in ("gaussian_robust", "range"):
        raise ConfigError(f"quantiles belong to the methods gaussian_robust and range, not to {method}.")
    if method == META_COMPATIBLE:
        rule = reference_rule(NormalizerConfig(with_fft=with_fft, clip_proba=clip_proba))
    else:
        rule = FitRule(
            method=method,  # type: ignore[arg-type]
            quantiles=QUARTILES if quantiles is None else quantiles,
            with_fft=with_fft,
            clip_proba=clip_proba,
        )
    rule.check()
    return rule


def reference_rule(config: NormalizerConfig) -> FitRule:
    """What the reference release fits for this configuration, whose quantiles it takes for percentages."""
    return FitRule(
        method=_REFERENCE_METHODS[config.normalization_method],
        quantiles=(config.quantile_min, config.quantile_max),
        with_fft=config.with_fft,
        clip_proba=config.clip_proba,
        as_reference=True,
    )
