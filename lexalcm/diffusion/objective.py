"""The training objective: which noise each position gets, and what its error counts.

Shapes: ``*P`` positions of a batch (N packed, B, T padded), ``*Q`` those of them that are predicted (all, or Q of a batch
with sources), C concept_dim, K noise draws a position. With K = 1 the leading dimension is left out.

Nothing here waits for the device: no ``.item()``, no boolean indexing, no shape that depends on data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, get_args

import torch
from torch import Tensor

from lexalcm.diffusion.parametrization import OutputForm, PredictionType, loss_weight, precise
from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.diffusion.timestep_density import TimestepDensityConfig, timestep_probabilities
from lexalcm.errors import ConfigError, unknown_name
from lexalcm.layout import DocumentLayout

ErrorMeasure = Literal["mean_square", "sum_square", "root_sum_square"]

Weighting = Literal["none", "clamp_snr", "clamp_snr_meta"]

DropRule = Literal["bernoulli", "meta_compatible"]

_ROOT_OFFSET: Final = 1e-5


@dataclass(kw_only=True)
class ObjectiveConfig:
    """What a model is trained for."""

    timestep_density: TimestepDensityConfig = field(default_factory=TimestepDensityConfig)
    """How often each timestep is drawn."""

    error: ErrorMeasure = "mean_square"
    """What is summed up over positions: the squared error's mean over channels; ``sum_square``: its sum, as Meta's release
    has it (with 1024 channels 1024 times as large); ``root_sum_square``: the root of that sum plus 1e-5 (Meta's
    ``compute_rmse``)."""

    weighting: Weighting = "none"
    """``clamp_snr``: errors are weighed by SNR(t) clamped to ``[min_gamma, max_gamma]``, scaled to average 1 over the
    drawn timesteps. ``clamp_snr_meta``: scaled to average 1 over each batch, as Meta's release does."""

    min_gamma: float = 0.0
    """Lower clamp of the weights."""

    max_gamma: float = 5.0
    """Upper clamp of the weights."""

    noise_draws: int = 1
    """Noisy versions of each concept on one pass of the contextualizer."""

    guidance_dropout: float = 0.15
    """Probability that a position sees no context, which is what guidance needs."""

    guidance_drop_rule: DropRule = "bernoulli"
    """``bernoulli``: each position by itself. ``meta_compatible``: a fixed number of positions, counted in the longest
    document and the same in all (but chosen for each document with a source), never the first."""

    context_noise: float = 0.0
    """Standard deviation of noise on the concepts that the contextualizer reads in training, which keeps a model from
    knowing the documents of a small corpus by heart (conditioning augmentation, Ho et al. 2022)."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        self.timestep_density.check()
        for name, value, known in (
            ("error", self.error, get_args(ErrorMeasure)),
            ("weighting", self.weighting, get_args(Weighting)),
            ("guidance_drop_rule", self.guidance_drop_rule, get_args(DropRule)),
        ):
            if value not in known:
                raise ConfigError(f"`objective.{name}`: {unknown_name('choice', str(value), known)}")
        if self.noise_draws < 1:
            raise ConfigError(f"`objective.noise_draws` must be at least 1, but is {self.noise_draws}.")
        if not 0.0 <= self.guidance_dropout < 1.0:
            raise ConfigError(f"`objective.guidance_dropout` must be in [0, 1), but is {self.guidance_dropout}.")
        if not 0.0 <= self.context_noise < math.inf:
            raise ConfigError(f"`objective.context_noise` must be 0 or more, but is {self.context_noise}.")
        if not 0.0 <= self.min_gamma <= self.max_gamma or self.max_gamma == 0.0:
            raise ConfigError(
                f"`objective.min_gamma` ({self.min_gamma}) and `objective.max_gamma` ({self.max_gamma}) must satisfy "
                f"0 <= min_gamma <= max_gamma, and the latter must be above 0."
            )


@dataclass(frozen=True)
class Draw:
    """The random part of one training batch."""

    timesteps: Tensor
    """int64 ``[*Q]`` or ``[K, *Q]``."""

    noise: Tensor
    """float32 N(0, 1), ``[*Q, C]`` or ``[K, *Q, C]``."""

    dropped: Tensor | None
    """bool ``[*Q]``: positions that see no context."""

    context_noise: Tensor | None = None
    """float32 ``[*P, C]``: added to the normalised concepts that the contextualizer reads while training."""


@dataclass(frozen=True)
class LossTerms:
    """The loss of one batch."""

    loss_sum: Tensor
    """float32 scalar: the sum over target positions of the weighted error, the mean over draws."""

    squared_error: Tensor
    """float32, the shape of the timesteps: the unweighted error of the clean prediction at each position, the mean over
    channels, detached."""


class TrainingObjective(Protocol):
    """What training knows of an objective: any class with these two can take the place of :class:`Objective`."""

    def draw(
        self, layout: DocumentLayout, concept_dim: int, *, generator: torch.Generator | None = None
    ) -> Draw:
        """Draws the random part of a batch, on the layout's device; nothing here may wait for it."""

    def loss(self, predicted: Tensor, clean: Tensor, timesteps: Tensor, target_mask: Tensor) -> LossTerms:
        """Measures clean, normalised predictions ``[*Q, C]`` or ``[K, *Q, C]`` against the concepts ``[*Q, C]``."""


class Objective:
    """Draws noise and measures errors for one model."""

    def __init__(
        self,
        config: ObjectiveConfig,
        schedule: NoiseSchedule,
        prediction_type: PredictionType = "sample",
        output_form: OutputForm = "direct",
    ) -> None:
        """:raises ConfigError: The model's schedule, prediction type and output form do not go together with this."""
        config.check()
        if prediction_type == "epsilon" and schedule.has_zero_terminal_snr:
            raise ConfigError(
                "`prediction_type: epsilon` cannot be trained on a schedule with zero terminal SNR: at its last timestep the "
                "clean concept would be divided by zero.\nUse `sample` or `v_prediction`, or a schedule that ends above 0."
            )
        if output_form == "residual" and prediction_type != "sample":
            raise ConfigError(
                f"`output_form: residual` belongs to `prediction_type: sample`, not to {prediction_type}."
            )
        self.config = config
        self.schedule = schedule
        probabilities = timestep_probabilities(config.timestep_density, schedule.num_timesteps)
        self.probabilities = probabilities
        """Of each trained timestep, float64 ``[S]``."""
        self._cumulative = probabilities.cumsum(0).float()
        self._conversion = self._build_conversion(prediction_type).float()
        self._weights = self._build_weights().float()
        self._by_device: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def _build_conversion(self, prediction_type: PredictionType) -> Tensor:
        """What turns a squared error of the clean concept into one of what the network predicts."""
        # Of the float32 alpha-bars that concepts are noised with: next to 1 they lose digits of 1 - alpha-bar.
        trained = self.schedule.table[self.schedule.first_timestep :].float().double()
        conversion = loss_weight(trained, prediction_type)
        if not bool(torch.isfinite(conversion.float()).all()):
            raise ConfigError(
                f"`prediction_type: {prediction_type}` cannot be trained on a schedule whose first timesteps hold no noise: "
                f"their clean concepts tell nothing of it.\nUse `sample`, or a schedule that is less steep."
            )
        return conversion

    def _build_weights(self) -> Tensor:
        if self.config.weighting == "none":
            return torch.ones(self.schedule.num_timesteps)
        gamma = self._clamped_snr()
        if self.config.weighting == "clamp_snr_meta":
            return gamma
        average = (gamma * self.probabilities).sum()
        if not average > 0.0:
            raise ConfigError(
                "`objective.weighting: clamp_snr` gives every drawn timestep the weight 0. Raise `min_gamma`."
            )
        return gamma / average

    def _clamped_snr(self) -> Tensor:
        return self.schedule.snr()[self.schedule.first_timestep :].clamp(self.config.min_gamma, self.config.max_gamma)

    def draw(
        self, layout: DocumentLayout, concept_dim: int, *, generator: torch.Generator | None = None
    ) -> Draw:
        """Draws timesteps, noise, dropped positions and context noise, in this order, on the layout's device."""
        device = layout.device
        draws = self.config.noise_draws
        shape = layout.query_positions.shape
        full = shape if draws == 1 else torch.Size((draws, *shape))
        cumulative, _, _ = self._tables(device)
        uniform = torch.rand(full, device=device, generator=generator)
        last = self.schedule.num_timesteps - 1
        index = torch.searchsorted(cumulative, uniform, right=True).clamp_(max=last)
        noise = torch.randn((*full, concept_dim), device=device, generator=generator)
        dropped = self._drop(layout, generator)
        context_noise = None
        if self.config.context_noise > 0.0:
            context_noise = torch.randn((*layout.positions.shape, concept_dim), device=device, generator=generator)
            context_noise.mul_(self.config.context_noise)
        return Draw(index + self.schedule.first_timestep, noise, dropped, context_noise)

    def _drop(self, layout: DocumentLayout, generator: torch.Generator | None) -> Tensor | None:
        share = self.config.guidance_dropout
        if share == 0.0:
            return None
        positions = layout.query_positions
        if self.config.guidance_drop_rule == "bernoulli":
            return torch.rand(positions.shape, device=positions.device, generator=generator) < share
        longest = layout.width if layout.source_lengths is None else max(layout.target_lengths)
        later = max(longest - 1, 0)
        rows = 1 if layout.source_lengths is None else layout.num_documents
        # The ranks of random numbers are a random permutation, here one a row.
        order = torch.rand(rows, later, device=positions.device, generator=generator).argsort(dim=-1)
        chosen = torch.nn.functional.pad(order < int(later * share), (1, 0), value=False)
        if rows == 1:
            return chosen[0][positions]
        return chosen[layout.query_documents(), positions]

    def loss(self, predicted: Tensor, clean: Tensor, timesteps: Tensor, target_mask: Tensor) -> LossTerms:
        """
        :param predicted: Clean, normalised concepts ``[*Q, C]`` or ``[K, *Q, C]``.
        :param clean: The true ones ``[*Q, C]``.
        :param timesteps: As drawn.
        :param target_mask: bool ``[*Q]``: positions that count.
        """
        with torch.autocast(predicted.device.type, enabled=False):
            clean = precise(clean)
            squared = (precise(predicted) - clean).square().mean(dim=-1).to(clean.dtype)
            _, conversion, weights = self._tables(timesteps.device)
            rows = timesteps - self.schedule.first_timestep
            error = error_of(squared * conversion[rows].to(squared.dtype), clean.size(-1), self.config.error)
            drawn_weights = weights[rows].to(error.dtype)
            counted = target_mask.to(error.dtype)
            weighted = error * drawn_weights
            if self.config.weighting == "clamp_snr_meta":
                weighted = weighted / _batch_average(drawn_weights, counted)
            loss_sum = (weighted * counted).sum()
            if predicted.dim() > clean.dim():
                loss_sum = loss_sum / predicted.size(0)
        return LossTerms(loss_sum, squared.detach())

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        tables = self._by_device.get(device)
        if tables is None:
            tables = (self._cumulative.to(device), self._conversion.to(device), self._weights.to(device))
            self._by_device[device] = tables
        return tables


def error_of(mean_square: Tensor, num_channels: int, measure: ErrorMeasure) -> Tensor:
    """The measure of an error whose squares have the mean ``mean_square`` over the channels."""
    if measure == "mean_square":
        return mean_square
    total = mean_square * num_channels
    return total if measure == "sum_square" else (total + _ROOT_OFFSET).sqrt()


def _batch_average(drawn_weights: Tensor, counted: Tensor) -> Tensor:
    counted = counted.expand(drawn_weights.shape)
    average = (drawn_weights * counted).sum() / counted.sum().clamp(min=1.0)
    # When every target drew a timestep of weight 0 the loss is 0, not 0/0.
    return torch.where(average > 0.0, average, 1.0)
