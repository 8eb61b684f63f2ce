"""Configuration and archs of Meta's base LCM; names and defaults are Meta's (specification, sections 2.3 and 2.6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fairseq2.runtime.config_registry import ConfigRegistrar
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.errors import ConfigError
from lexalcm.models.layers.transformer_config import FrontendConfig, ProjectionConfig, TransformerConfig, check_model
from lexalcm.models.normalizer.config import NormalizerConfig

BASE_FAMILY: Final = "base_lcm"


@dataclass(kw_only=True)
class BaseFrontendConfig(FrontendConfig):
    """The door of concepts into the transformer."""

    scale_embeddings: bool = False
    """Multiply concepts by the root of ``model_dim`` first."""

    embedding_std: float = 0.006
    """Standard deviation of fresh learned positions; that of raw SONAR embeddings."""


@dataclass(kw_only=True)
class BaseConfig:
    """Meta's ``BaseLCModelConfig``, and one field of ours, the last."""

    model_type: str = BASE_FAMILY
    """Always this; Meta's cards hold it."""

    sonar_embed_dim: int = 1024
    """Dimension of a concept."""

    sonar_normalizer_name: str | None = None
    """The card of the normalizer; ``null``: concepts are taken as they are."""

    max_seq_len: int = 2048
    """Length of the longest document, its special concepts included."""

    model_dim: int = 1024

    model_output_dim: int | None = None
    """Must be ``sonar_embed_dim``, or ``null`` for the same: what is predicted is a concept."""

    frontend: BaseFrontendConfig = field(default_factory=BaseFrontendConfig)

    lcm: TransformerConfig = field(default_factory=TransformerConfig)

    postnet: ProjectionConfig = field(default_factory=ProjectionConfig)

    normalizer: NormalizerConfig | None = None
    """Not in Meta's configuration, which looks it up by ``sonar_normalizer_name``: how concepts are normalised. ``null``
    without that name: not at all."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        check_model(self, BASE_FAMILY)
        if self.model_output_dim not in (None, self.sonar_embed_dim):
            raise ConfigError(
                f"model config: `model_output_dim` ({self.model_output_dim}) must equal `sonar_embed_dim` "
                f"({self.sonar_embed_dim}): the loss compares the output with a concept."
            )
        self.lcm.check("lcm", self.model_dim)
        self.postnet.check("postnet")
        if self.normalizer is not None:
            self.normalizer.check_for_model(self.sonar_embed_dim)

    def dead_fields(self) -> list[str]:
        """Fields that are set, but mean nothing, here as in Meta's code."""
        return self.postnet.dead_fields("postnet")


def register_base_configs(container: DependencyContainer) -> None:
    """Registers Meta's named architectures."""
    arch = ConfigRegistrar(container, BaseConfig)

    @arch("toy_base_lcm")
    def toy() -> BaseConfig:
        return BaseConfig()

    @arch("base_lcm_1_6B")
    def large() -> BaseConfig:
        return BaseConfig(
            sonar_normalizer_name="dummy_sonar_normalizer",
            max_seq_len=4096,
            model_dim=2048,
            lcm=TransformerConfig(
                num_layers=32,
                num_attn_heads=16,
                ffn_inner_dim=8192,
                use_swiglu=True,
                layer_normalization_style="rms",
                pos_embedding_style="rope",
                mha_output_proj_bias=True,
                dropout_p=0.1,
                final_dropout_p=0.0,
                attention_dropout_p=0.0,
            ),
        )
