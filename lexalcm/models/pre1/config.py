"""Configuration and archs of the LexaLCM-Pre1 family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fairseq2.runtime.config_registry import ConfigRegistrar
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.diffusion.parametrization import OutputForm, PredictionType
from lexalcm.diffusion.schedule import ScheduleConfig
from lexalcm.errors import ConfigError

PRE1_FAMILY: Final = "lexalcm"


@dataclass(kw_only=True)
class Pre1Config:
    """The defaults are ``pre1_400m``: 394,900,736 parameters at ``concept_dim`` 1024."""

    concept_dim: int = 1024
    """Dimension of a concept, and of the latent between the towers."""

    model_dim: int = 1536
    """Width of both towers."""

    num_context_layers: int = 3
    """Layers of the contextualizer."""

    num_denoiser_layers: int = 4
    """Layers of the denoiser."""

    num_heads: int = 16
    """Attention heads of both towers; must divide ``model_dim`` into an even head dimension."""

    ffn_dim: int = 6144
    """Inner width of the SwiGLU feed-forward networks."""

    timestep_dim: int = 256
    """Number of sine and cosine features of a timestep; even."""

    rope_theta: float = 10000.0
    """Base of the rotary frequencies of the contextualizer."""

    denoiser_norm_weights: bool = False
    """If ``True``, the denoiser's norms before modulation have weights, as the ``final`` revision's checkpoints do."""

    context_dropout_p: float = 0.1
    """Dropout on the contextualizer's residual branches."""

    bridge_dropout_p: float = 0.1
    """Dropout after the latent bridge."""

    denoiser_dropout_p: float = 0.1
    """Dropout on the denoiser's residual branches."""

    linear_context: int = 0
    """If above 0, a linear path, zero at initialisation, adds to the clean prediction what it reads from this many
    preceding concepts and the mean of all preceding ones. 0 switches it off."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The noise schedule."""

    prediction_type: PredictionType = "sample"
    """What the network is trained to predict: the clean concept, the noise or the velocity."""

    output_form: OutputForm = "direct"
    """``direct``: the network's output is the prediction. ``residual``: clean = sqrt(a) x_t + sqrt(1 - a) output."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        for name in (
            "concept_dim",
            "model_dim",
            "num_context_layers",
            "num_denoiser_layers",
            "num_heads",
            "ffn_dim",
            "timestep_dim",
        ):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"model config: `{name}` must be at least 1, but is {value}.")
        if self.model_dim % (2 * self.num_heads) != 0:
            raise ConfigError(
                f"model config: `model_dim` ({self.model_dim}) must be a multiple of twice `num_heads` ({self.num_heads}), "
                f"so that every head has an even dimension to rotate."
            )
        if self.timestep_dim % 2 != 0:
            raise ConfigError(f"model config: `timestep_dim` must be even, but is {self.timestep_dim}.")
        for name in ("context_dropout_p", "bridge_dropout_p", "denoiser_dropout_p"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"model config: `{name}` must be in [0, 1), but is {value}.")
        if self.linear_context < 0:
            raise ConfigError(f"model config: `linear_context` must be at least 0, but is {self.linear_context}.")
        if self.prediction_type != "sample" and self.output_form != "direct":
            raise ConfigError(
                f"model config: `output_form: {self.output_form}` belongs to `prediction_type: sample`, but the latter is "
                f"{self.prediction_type}."
            )
        self.schedule.check()

    def num_parameters(self) -> int:
        """Parameters of the model; buffers (schedule, normalizer statistics) do not count."""
        c, m, f, e = self.concept_dim, self.model_dim, self.ffn_dim, self.timestep_dim
        attention = 4 * m * m
        ffn = 2 * (m * f + f) + f * m + m
        frontend = 2 * c + c * m + m
        context_layer = attention + ffn + 2 * m
        denoiser_layer = 2 * attention + ffn + 3 * (m * 3 * m + 3 * m) + (3 * m if self.denoiser_norm_weights else 0)
        return (
            (e * e + e + e * m + m)
            + 2 * frontend
            + self.num_context_layers * context_layer
            + m
            + (m * c + c)
            + (c + c * c + c)
            + self.num_denoiser_layers * denoiser_layer
            + m
            + (m * c + c)
            + c * self.num_linear_features
        )

    @property
    def num_linear_features(self) -> int:
        """Width of what the linear path reads: the preceding concepts and their mean."""
        return (self.linear_context + 1) * self.concept_dim if self.linear_context else 0

    def flops_per_concept(self, context_len: int, *, noise_draws: float = 1) -> int:
        """FLOPs of forward and backward a trained concept.

        Counts multiplications and additions of matrix products in the fast formulation: modulators once a schedule row
        (so nothing a concept), own-position attention as value and output projection, attention over half of
        ``context_len`` on average, the contextualizer on all concepts of a document but the last.
        """
        c, m, f = self.concept_dim, self.model_dim, self.ffn_dim
        seen = (context_len + 1) / 2
        context = c * m + self.num_context_layers * (4 * m * m + 3 * m * f + 2 * m * seen)
        context += m * c + c * c + c * m
        context *= (context_len - 1) / context_len
        context += self.num_denoiser_layers * 2 * m * m
        denoiser = c * m + self.num_denoiser_layers * (4 * m * m + 3 * m * f + 2 * m * seen) + m * c
        denoiser += c * self.num_linear_features
        return int(3 * 2 * (context + noise_draws * denoiser))


def register_pre1_configs(container: DependencyContainer) -> None:
    """Registers the family's named architectures."""
    arch = ConfigRegistrar(container, Pre1Config)

    @arch("pre1_400m")
    def pre1_400m() -> Pre1Config:
        return Pre1Config()

    @arch("pre1_400m_final")
    def pre1_400m_final() -> Pre1Config:
        return Pre1Config(denoiser_norm_weights=True)

    @arch("pre1_tiny")
    def pre1_tiny() -> Pre1Config:
        return Pre1Config(
            model_dim=128,
            num_context_layers=2,
            num_denoiser_layers=2,
            num_heads=4,
            ffn_dim=512,
            timestep_dim=64,
        )
