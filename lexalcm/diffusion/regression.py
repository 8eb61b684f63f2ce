"""The objective of models that predict a concept without noise.

Shapes: ``*Q`` positions that are predicted, C concept_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from lexalcm.diffusion.objective import Draw, ErrorMeasure, LossTerms, error_of
from lexalcm.diffusion.parametrization import precise
from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.errors import ConfigError, unknown_name
from lexalcm.layout import DocumentLayout


@dataclass(kw_only=True)
class RegressionConfig:
    """What a regression model is trained for."""

    error: ErrorMeasure = "mean_square"
    """As of :class:`~lexalcm.diffusion.objective.ObjectiveConfig`."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        if self.error not in get_args(ErrorMeasure):
            raise ConfigError(f"`objective.error`: {unknown_name('choice', str(self.error), get_args(ErrorMeasure))}")


class Regression:
    """Measures errors of predictions made from pure noise, which takes no random numbers."""

    def __init__(self, config: RegressionConfig, schedule: NoiseSchedule) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        config.check()
        self.config = config
        self.schedule = schedule

    def draw(
        self, layout: DocumentLayout, concept_dim: int, *, generator: torch.Generator | None = None
    ) -> Draw:
        """The last timestep everywhere, and zeros that take no room for the noise nobody reads."""
        positions = layout.query_positions
        timesteps = torch.full_like(positions, self.schedule.last_timestep)
        noise = torch.zeros((), device=positions.device).expand(*positions.shape, concept_dim)
        return Draw(timesteps, noise, None)

    def loss(self, predicted: Tensor, clean: Tensor, timesteps: Tensor, target_mask: Tensor) -> LossTerms:
        """Measures normalised predictions ``[*Q, C]`` against the concepts ``[*Q, C]``."""
        with torch.autocast(predicted.device.type, enabled=False):
            squared = (precise(predicted) - clean).square().mean(dim=-1)
            loss_sum = (error_of(squared, clean.size(-1), self.config.error) * target_mask.to(squared.dtype)).sum()
        return LossTerms(loss_sum, squared.detach())
