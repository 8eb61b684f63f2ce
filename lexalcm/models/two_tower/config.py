"""Configuration and archs of Meta's two-tower diffusion LCM; names and defaults are Meta's (specification, section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fairseq2.runtime.config_registry import ConfigRegistrar
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.diffusion.parametrization import PredictionType
from lexalcm.diffusion.schedule import ScheduleConfig
from lexalcm.errors import ConfigError
from lexalcm.models.layers.transformer_config import (
    FrontendConfig,
    PositionStyle,
    ProjectionConfig,
    TransformerConfig,
    check_choices,
    check_model,
)
from lexalcm.models.normalizer.config import NormalizerConfig

TWO_TOWER_FAMILY: Final = "two_tower_diffusion_lcm"

QueryPositions = Literal["document", "meta_compatible"]

TIMESTEP_FEATURES: Final = 256


@dataclass(kw_only=True)
class NoiseSchedulerConfig:
    """The noise schedule, and options of Meta's DDIM scheduler that are of use in sampling only."""

    num_diffusion_train_steps: int = 1000

    beta_start: float = 1e-4

    beta_end: float = 0.02

    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"] = "squaredcos_cap_v2"

    scaled_linear_exponent: float = 2.0

    sigmoid_schedule_alpha: float = 1.5

    sigmoid_schedule_beta: float = 0.0

    clip_sample: bool = False
    """As its range, the fields of thresholding and the spacing: a matter of sampling, set in ``sampler_config``. Whoever
    sets it here is told so."""

    clip_sample_range: float = 1.0

    set_alpha_to_one: bool = True

    prediction_type: PredictionType = "sample"

    thresholding: bool = False

    dynamic_thresholding_ratio: float = 0.995

    sample_max_value: float = 1.0

    rescale_betas_zero_snr: bool = True

    timestep_spacing: Literal["linspace", "leading", "trailing"] = "trailing"

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        # Not annotations alone: a dataclass takes anything.
        check_choices(
            "noise_scheduler",
            beta_schedule=(self.beta_schedule, Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]),
            prediction_type=(self.prediction_type, PredictionType),
            timestep_spacing=(self.timestep_spacing, Literal["linspace", "leading", "trailing"]),
        )
        self.schedule().check()

    def schedule(self) -> ScheduleConfig:
        """The same schedule in the terms of this package."""
        return ScheduleConfig(
            kind=self.beta_schedule,
            num_steps=self.num_diffusion_train_steps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            scaled_linear_exponent=self.scaled_linear_exponent,
            sigmoid_alpha=self.sigmoid_schedule_alpha,
            sigmoid_beta=float(self.sigmoid_schedule_beta),
            rescale_zero_terminal_snr=self.rescale_betas_zero_snr,
        )


@dataclass(kw_only=True)
class DenoiserConfig(TransformerConfig):
    """The denoiser: transformer layers with cross-attention to the past, modulated by the timestep."""

    pos_embedding_style: PositionStyle = "none"

    pre_denoiser: ProjectionConfig = field(default_factory=ProjectionConfig)

    post_denoiser: ProjectionConfig = field(default_factory=ProjectionConfig)

    timestep_embed_dim: int = 1024
    """Must equal ``model_dim``."""


@dataclass(kw_only=True)
class TwoTowerConfig:
    """Meta's ``TwoTowerDiffusionLCModelConfig``, and one field of ours, the last."""

    model_type: str = TWO_TOWER_FAMILY
    """Always this; Meta's cards hold it."""

    sonar_embed_dim: int = 1024
    """Dimension of a concept."""

    sonar_normalizer_name: str | None = None
    """The card of the normalizer. Its statistics are part of a checkpoint, so that only a new model needs the card."""

    max_seq_len: int = 2048
    """Length of the longest document, its special concepts included."""

    model_dim: int = 1024
    """Width of both towers."""

    frontend: FrontendConfig = field(default_factory=FrontendConfig)

    context_encoder: TransformerConfig = field(default_factory=TransformerConfig)

    noise_scheduler: NoiseSchedulerConfig = field(default_factory=NoiseSchedulerConfig)

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)

    trained_with_cf_guidance: bool = False
    """Whether positions without context were trained, which guidance needs."""

    normalizer: NormalizerConfig | None = None
    """Not in Meta's configuration, which looks it up by ``sonar_normalizer_name``: whether values are clipped or
    transformed. ``null``: a plain normalizer of ``sonar_embed_dim`` dimensions."""

    query_positions: QueryPositions = "document"
    """Not in Meta's configuration: where a query stands if the denoiser has positions. ``document``: its place in the
    document, in training and sampling. ``meta_compatible``: as counted from the first target in training, and 0 in
    sampling."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        check_model(self, TWO_TOWER_FAMILY)
        self.context_encoder.check("context_encoder", self.model_dim)
        self.noise_scheduler.check()
        self._check_denoiser()
        check_choices("model", query_positions=(self.query_positions, QueryPositions))
        self.normalizer_config.check_for_model(self.sonar_embed_dim)

    def _check_denoiser(self) -> None:
        denoiser = self.denoiser
        denoiser.check("denoiser", self.model_dim)
        for name in ("pre_denoiser", "post_denoiser"):
            getattr(denoiser, name).check(f"denoiser.{name}")
        if denoiser.norm_order_style == "post":
            raise ConfigError(
                "model config: `denoiser.norm_order_style: post` cannot be modulated by the timestep (Meta's model fails in "
                "its first step too). Use pre or normformer."
            )
        if denoiser.timestep_embed_dim != self.model_dim:
            raise ConfigError(
                f"model config: `denoiser.timestep_embed_dim` ({denoiser.timestep_embed_dim}) must equal `model_dim` "
                f"({self.model_dim})."
            )

    @property
    def normalizer_config(self) -> NormalizerConfig:
        return NormalizerConfig(dim=self.sonar_embed_dim) if self.normalizer is None else self.normalizer

    def dead_fields(self) -> list[str]:
        """Fields that are set, but mean nothing, here as in Meta's code."""
        dead = self.denoiser.pre_denoiser.dead_fields("denoiser.pre_denoiser")
        dead += self.denoiser.post_denoiser.dead_fields("denoiser.post_denoiser")
        dead += [f"denoiser.{n}" for n in ("scale_residual", "final_norm_order_style") if getattr(self.denoiser, n)]
        # It decides where the last step of sampling goes, and what is returned is the prediction before that step.
        dead += [] if self.noise_scheduler.set_alpha_to_one else ["noise_scheduler.set_alpha_to_one"]
        return dead

    def sampling_fields(self) -> list[str]:
        """Fields of the noise scheduler that are set, but belong to a sampler's configuration."""
        default = NoiseSchedulerConfig()
        names = ("clip_sample", "thresholding", "timestep_spacing")
        scheduler = self.noise_scheduler
        return [f"noise_scheduler.{n}" for n in names if getattr(scheduler, n) != getattr(default, n)]


def register_two_tower_configs(container: DependencyContainer) -> None:
    """Registers Meta's named architectures."""
    arch = ConfigRegistrar(container, TwoTowerConfig)

    @arch("toy_two_tower_diffusion_lcm")
    def toy() -> TwoTowerConfig:
        return TwoTowerConfig(sonar_normalizer_name="dummy_sonar_normalizer")

    @arch("two_tower_diffusion_lcm_1_6B")
    def large() -> TwoTowerConfig:
        return _scaled(model_dim=2048, num_heads=16, ffn_inner_dim=8192, num_denoiser_layers=13)

    @arch("two_tower_diffusion_lcm_7B")
    def larger() -> TwoTowerConfig:
        return _scaled(model_dim=4096, num_heads=32, ffn_inner_dim=16384, num_denoiser_layers=14)


def _scaled(*, model_dim: int, num_heads: int, ffn_inner_dim: int, num_denoiser_layers: int) -> TwoTowerConfig:
    shared = {
        "num_attn_heads": num_heads,
        "ffn_inner_dim": ffn_inner_dim,
        "use_swiglu": True,
        "layer_normalization_style": "rms",
        "mha_output_proj_bias": True,
        "dropout_p": 0.1,
        "final_dropout_p": 0.0,
        "attention_dropout_p": 0.0,
    }
    return TwoTowerConfig(
        sonar_normalizer_name="dummy_sonar_normalizer",
        max_seq_len=4096,
        model_dim=model_dim,
        context_encoder=TransformerConfig(num_layers=5, pos_embedding_style="rope", **shared),  # type: ignore[arg-type]
        denoiser=DenoiserConfig(
            num_layers=num_denoiser_layers,
            pos_embedding_style="none",
            timestep_embed_dim=model_dim,
            **shared,  # type: ignore[arg-type]
        ),
        noise_scheduler=NoiseSchedulerConfig(num_diffusion_train_steps=100),
        trained_with_cf_guidance=True,
    )
