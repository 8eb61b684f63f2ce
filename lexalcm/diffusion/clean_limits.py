"""Limits on predicted clean concepts, for models whose predictions overshoot.

Shapes: ``...`` positions, C dimensions of a concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lexalcm.errors import ConfigError

SMALLEST_THRESHOLD: Final = 1.0

DEFAULT_MAX_THRESHOLD: Final = 6.0
"""That of Meta's generator."""


@dataclass(kw_only=True)
class CleanLimits:
    """The part of a sampler's configuration that limits the predicted clean concept."""

    clip_clean: float | None = None
    """Clamps every component to plus and minus this (in Meta's release ``clip_sample`` and ``clip_sample_range``)."""

    dynamic_thresholding_ratio: float | None = None
    """Clamps each concept to s, this quantile p of its absolute values, and divides by it (Saharia et al. 2022; in
    Meta's release ``thresholding`` and this very name). What results lies between -1 and 1 in the normalised space."""

    max_threshold: float | None = None
    """The largest that quantile s may be, 6 by default (Meta's ``sample_max_value``); the smallest is 1."""

    @property
    def is_limiting(self) -> bool:
        return self.clip_clean is not None or self.dynamic_thresholding_ratio is not None

    def check_limits(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        ratio, most = self.dynamic_thresholding_ratio, self.max_threshold
        if self.clip_clean is not None and not self.clip_clean > 0.0:
            raise ConfigError(f"`sampler.clip_clean` must be above 0, but is {self.clip_clean}.")
        if self.clip_clean is not None and ratio is not None:
            raise ConfigError("Only one of `sampler.clip_clean` and `sampler.dynamic_thresholding_ratio` can be set.")
        if ratio is not None and not 0.0 < ratio <= 1.0:
            raise ConfigError(f"`sampler.dynamic_thresholding_ratio` must be above 0 and at most 1, but is {ratio}.")
        if most is not None and ratio is None:
            raise ConfigError("`sampler.max_threshold` needs `sampler.dynamic_thresholding_ratio` (say 0.995).")
        if most is not None and not most >= SMALLEST_THRESHOLD:
            raise ConfigError(f"`sampler.max_threshold` must be at least {SMALLEST_THRESHOLD:g}, but is {most}.")

    def limit(self, clean: Tensor) -> Tensor:
        """Limits ``clean`` ``[..., C]``, float32 or float64, as asked for, if at all."""
        if self.dynamic_thresholding_ratio is not None:
            most = DEFAULT_MAX_THRESHOLD if self.max_threshold is None else self.max_threshold
            return threshold_dynamically(clean, self.dynamic_thresholding_ratio, most)
        return clean if self.clip_clean is None else clean.clamp(-self.clip_clean, self.clip_clean)


def threshold_dynamically(clean: Tensor, ratio: float, max_threshold: float) -> Tensor:
    """Dynamic thresholding, Saharia et al. 2022, section 2.3: each concept by its own spread.

    The threshold is the ``ratio`` quantile of a concept's absolute values, at least 1 and at most ``max_threshold``.
    The concept is clamped to it and divided by it.
    """
    threshold = torch.quantile(clean.abs(), ratio, dim=-1, keepdim=True)
    threshold = threshold.clamp(SMALLEST_THRESHOLD, max_threshold)
    return torch.maximum(torch.minimum(clean, threshold), -threshold) / threshold
