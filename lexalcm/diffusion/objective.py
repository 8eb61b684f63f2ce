"""The training objective: which noise each position gets, and what its error counts.

Shapes: ``*P`` positions of a batch (N packed, B, T padded), C concept_dim, K noise draws a position. With K = 1 the
leading dimension is left out.

Nothing here waits for the device: no ``.item()``, no boolean indexing, no shape that depends on data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from lexalcm.diffusion.parametrization import OutputForm, PredictionType, loss_weight, precise
from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.diffusion.timestep_density import TimestepDensityConfig, timestep_probabilities
from lexalcm.errors import ConfigError, unknown_name

Weighting = Literal["none", "clamp_snr", "clamp_snr_meta"]

DropRule = Literal["bernoulli", "meta_compatible"]


@dataclass(kw_only=True)
class ObjectiveConfig:
    """What a model is trained for."""

    timestep_density: TimestepDensityConfig = field(default_factory=TimestepDensityConfig)
    """How often each timestep is drawn."""

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
    """``bernoulli``: each position by itself. ``meta_compatible``: a fixed number of positions, the same in the whole
    padded batch, never the first."""

    context_noise: float = 0.0
    """Standard deviation of noise on the concepts that the contextualizer reads in training, which keeps a model from
    knowing the documents of a small corpus by heart (conditioning augmentation, Ho et al. 2022)."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        self.timestep_density.check()
        for name, value, known in (
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
    """int64 ``[*P]`` or ``[K, *P]``."""

    noise: Tensor
    """float32 N(0, 1), ``[*P, C]`` or ``[K, *P, C]``."""

    dropped: Tensor | None
    """bool ``[*P]``: positions that see no context."""

    context_noise: Tensor | None = None
    """float32 ``[*P, C]``: added to the normalised concepts that the contextualizer reads while training."""


@dataclass(frozen=True)
class LossTerms:
    """The loss of one batch."""

    loss_sum: Tensor
    """float32 scalar: the sum over target positions of the weighted error, the mean over channels and draws."""

    squared_error: Tensor
    """float32, the shape of the timesteps: the unweighted error of the clean prediction at each position, detached."""


class TrainingObjective(Protocol):
    """What training knows of an objective: any class with these three can take the place of :class:`Objective`."""

    @property
    def needs_padded_batches(self) -> bool:
        """It cannot draw for packed batches, whose positions are not in rows of documents."""

    def draw(
        self,
        shape: torch.Size,
        concept_dim: int,
        *,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Draw:
        """Draws the random part of a batch of shape ``*P``; nothing here may wait for the device."""

    def loss(self, predicted: Tensor, clean: Tensor, timesteps: Tensor, target_mask: Tensor) -> LossTerms:
        """Measures clean, normalised predictions ``[*P, C]`` or ``[K, *P, C]`` against the concepts ``[*P, C]``."""


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
        self._weights = self._build_weights(prediction_type).float()
        self._gamma = self._clamped_snr().float()
        self._by_device: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def needs_padded_batches(self) -> bool:
        """The rule ``meta_compatible`` picks the same columns of every document."""
        return self.config.guidance_drop_rule == "meta_compatible" and self.config.guidance_dropout > 0.0

    def _build_weights(self, prediction_type: PredictionType) -> Tensor:
        trained = self.schedule.table[self.schedule.first_timestep :]
        weights = loss_weight(trained, prediction_type)
        if not bool(torch.isfinite(weights.float()).all()):
            raise ConfigError(
                f"`prediction_type: {prediction_type}` cannot be trained on a schedule whose first timesteps hold no noise: "
                f"their clean concepts tell nothing of it.\nUse `sample`, or a schedule that is less steep."
            )
        if self.config.weighting == "none":
            return weights
        gamma = self._clamped_snr()
        if self.config.weighting == "clamp_snr_meta":
            return weights * gamma
        average = (gamma * self.probabilities).sum()
        if not average > 0.0:
            raise ConfigError(
                "`objective.weighting: clamp_snr` gives every drawn timestep the weight 0. Raise `min_gamma`."
            )
        return weights * gamma / average

    def _clamped_snr(self) -> Tensor:
        return self.schedule.snr()[self.schedule.first_timestep :].clamp(self.config.min_gamma, self.config.max_gamma)

    def draw(
        self,
        shape: torch.Size,
        concept_dim: int,
        *,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> Draw:
        """Draws timesteps, noise, dropped positions and context noise, in this order.

        :param shape: ``*P``.
        """
        draws = self.config.noise_draws
        full = shape if draws == 1 else torch.Size((draws, *shape))
        cumulative, _, _ = self._tables(device)
        uniform = torch.rand(full, device=device, generator=generator)
        last = self.schedule.num_timesteps - 1
        index = torch.searchsorted(cumulative, uniform, right=True).clamp_(max=last)
        noise = torch.randn((*full, concept_dim), device=device, generator=generator)
        dropped = self._drop(shape, device, generator)
        context_noise = None
        if self.config.context_noise > 0.0:
            context_noise = torch.randn((*shape, concept_dim), device=device, generator=generator)
            context_noise.mul_(self.config.context_noise)
        return Draw(index + self.schedule.first_timestep, noise, dropped, context_noise)

    def _drop(self, shape: torch.Size, device: torch.device, generator: torch.Generator | None) -> Tensor | None:
        share = self.config.guidance_dropout
        if share == 0.0:
            return None
        if self.config.guidance_drop_rule == "bernoulli":
            return torch.rand(shape, device=device, generator=generator) < share
        if len(shape) != 2:
            raise ConfigError(
                "`objective.guidance_drop_rule: meta_compatible` needs padded batches: set `pack: false`."
            )
        later = shape[1] - 1
        dropped = torch.zeros(shape[1], dtype=torch.bool, device=device)
        chosen = torch.randperm(later, device=device, generator=generator)[: int(later * share)]
        dropped[1 + chosen] = True
        return dropped.expand(shape)

    def loss(self, predicted: Tensor, clean: Tensor, timesteps: Tensor, target_mask: Tensor) -> LossTerms:
        """
        :param predicted: Clean, normalised concepts ``[*P, C]`` or ``[K, *P, C]``.
        :param clean: The true ones ``[*P, C]``.
        :param timesteps: As drawn.
        :param target_mask: bool ``[*P]``: positions that count.
        """
        with torch.autocast(predicted.device.type, enabled=False):
            error = (precise(predicted) - clean).square().mean(dim=-1)
            _, weights, _ = self._tables(timesteps.device)
            weighted = error * weights[timesteps - self.schedule.first_timestep].to(error.dtype)
            counted = target_mask.to(error.dtype)
            if self.config.weighting == "clamp_snr_meta":
                weighted = weighted / self._batch_average(timesteps, counted)
            loss_sum = (weighted * counted).sum()
            if predicted.dim() > clean.dim():
                loss_sum = loss_sum / predicted.size(0)
        return LossTerms(loss_sum, error.detach())

    def _batch_average(self, timesteps: Tensor, counted: Tensor) -> Tensor:
        _, _, gamma = self._tables(timesteps.device)
        drawn = gamma[timesteps - self.schedule.first_timestep]
        counted = counted.expand(timesteps.shape)
        average = (drawn * counted).sum() / counted.sum().clamp(min=1.0)
        # When every target drew a timestep of weight 0 the loss is 0, not 0/0.
        return torch.where(average > 0.0, average, 1.0)

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        tables = self._by_device.get(device)
        if tables is None:
            tables = (self._cumulative.to(device), self._weights.to(device), self._gamma.to(device))
            self._by_device[device] = tables
        return tables
