"""Options of the transformers of Meta's release, with its names and defaults (specification, 2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.models.layers.feed_forward import ActivationName
from lexalcm.models.layers.norm_styles import NormStyle
from lexalcm.models.layers.projection import LinearInit

NormOrder = Literal["pre", "post", "normformer"]

PositionStyle = Literal["rope", "sine", "learned", "none"]


@dataclass(kw_only=True)
class TransformerConfig:
    """A stack of transformer layers."""

    num_layers: int = 2

    num_attn_heads: int = 8
    """Must divide ``model_dim``; with ``rope`` into an even dimension."""

    dropout_p: float = 0.1
    """Dropout on the outputs of attention and feed-forward before they join the residual stream."""

    final_dropout_p: float = 0.1
    """Dropout after the final norm."""

    attention_dropout_p: float = 0.0
    """Dropout on attention weights."""

    ffn_inner_dim: int = 4096
    """Inner width of the feed-forward networks; with ``use_swiglu`` two thirds of it, rounded up to 256."""

    use_swiglu: bool = False

    ffn_inner_activation_name: ActivationName = "relu"
    """Without ``use_swiglu`` only."""

    pos_embedding_style: PositionStyle = "learned"

    rope_theta: float = 10000.0

    layer_normalization_style: NormStyle = "standard"
    """``standard``: LayerNorm; ``fp32``: without bias; ``unit``: without parameters; ``rms``: RMSNorm."""

    norm_order_style: NormOrder = "pre"
    """``normformer`` adds norms after self-attention and inside the feed-forward networks (Shleifer et al. 2021)."""

    final_norm_order_style: NormOrder | None = None
    """``post`` leaves out the norm after the stack; by default as ``norm_order_style``."""

    enable_qk_layernorm: bool = False
    """Normalise queries and keys, over all heads together."""

    mha_qkv_weight_normalization: bool = False

    mha_output_weight_normalization: bool = False

    mha_output_proj_bias: bool = False
    """Queries, keys and values always have biases."""

    scale_residual: float | None = None
    """If set, the residual of the feed-forward branch is scaled by a learned vector that starts here."""

    attention_output_init_fn: LinearInit = "xavier"

    def check(self, where: str, model_dim: int) -> None:
        """
        :param where: Path of this section, for messages.
        :raises ConfigError: A field cannot be honoured.
        """
        for name in ("num_layers", "num_attn_heads", "ffn_inner_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model config: `{where}.{name}` must be at least 1, but is {getattr(self, name)}.")
        if model_dim % self.num_attn_heads != 0:
            raise ConfigError(
                f"model config: `{where}.num_attn_heads` ({self.num_attn_heads}) must divide `model_dim` ({model_dim})."
            )
        if self.pos_embedding_style == "rope" and model_dim // self.num_attn_heads % 2 != 0:
            raise ConfigError(
                f"model config: `{where}.pos_embedding_style: rope` needs heads of an even dimension, but "
                f"{model_dim} / {self.num_attn_heads} is odd."
            )
        if self.pos_embedding_style == "sine" and (model_dim % 2 != 0 or model_dim < 4):
            raise ConfigError(
                f"model config: `{where}.pos_embedding_style: sine` needs an even `model_dim` of 4 or more, but it is "
                f"{model_dim}."
            )
        if not 0.0 < self.rope_theta < math.inf:
            raise ConfigError(f"model config: `{where}.rope_theta` must be above 0, but is {self.rope_theta}.")
        for name in ("dropout_p", "final_dropout_p", "attention_dropout_p"):
            check_probability(getattr(self, name), f"{where}.{name}")
        check_choices(
            where,
            ffn_inner_activation_name=(self.ffn_inner_activation_name, ActivationName),
            pos_embedding_style=(self.pos_embedding_style, PositionStyle),
            layer_normalization_style=(self.layer_normalization_style, NormStyle),
            norm_order_style=(self.norm_order_style, NormOrder),
            attention_output_init_fn=(self.attention_output_init_fn, LinearInit),
        )
        if self.final_norm_order_style is not None:
            check_choices(where, final_norm_order_style=(self.final_norm_order_style, NormOrder))

    @property
    def ffn_width(self) -> int:
        """Inner width of a feed-forward network as built."""
        if self.use_swiglu:
            return 256 * math.ceil(int(self.ffn_inner_dim * 2 / 3) / 256)
        return self.ffn_inner_dim

    @property
    def has_final_norm(self) -> bool:
        return (self.final_norm_order_style or self.norm_order_style) != "post"

    def ffn_multiplications(self, model_dim: int) -> int:
        """Multiplications of a feed-forward network at one position."""
        return (3 if self.use_swiglu else 2) * model_dim * self.ffn_width


@dataclass(kw_only=True)
class FrontendConfig:
    """The door of concepts into a tower."""

    dropout_p: float = 0.0

    pre_linear_bias: bool = True

    pre_linear_init_fn: LinearInit = "kaiming_uniform"

    weight_normalization: bool = False

    embedding_std: float = 1.0
    """Standard deviation of fresh learned positions."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        check_probability(self.dropout_p, "frontend.dropout_p")
        check_choices("frontend", pre_linear_init_fn=(self.pre_linear_init_fn, LinearInit))
        if not self.embedding_std >= 0.0:
            raise ConfigError(f"model config: `frontend.embedding_std` must be 0 or more, but is {self.embedding_std}.")


@dataclass(kw_only=True)
class ProjectionConfig:
    """A linear layer in front of a tower or behind it."""

    dropout_p: float = 0.0
    """Without effect, here as in Meta's release."""

    linear_bias: bool = True

    linear_init_fn: LinearInit = "kaiming_uniform"

    weight_normalization: bool = False

    layer_normalization_style: NormStyle = "standard"
    """Without effect, here as in Meta's release."""

    activation_name: ActivationName | None = None
    """Applied to the output."""

    def check(self, where: str) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        check_choices(
            where,
            linear_init_fn=(self.linear_init_fn, LinearInit),
            layer_normalization_style=(self.layer_normalization_style, NormStyle),
        )
        if self.activation_name is not None:
            check_choices(where, activation_name=(self.activation_name, ActivationName))

    def dead_fields(self, where: str) -> list[str]:
        """Fields that are set, but mean nothing."""
        default = ProjectionConfig()
        names = ("dropout_p", "layer_normalization_style")
        return [f"{where}.{name}" for name in names if getattr(self, name) != getattr(default, name)]


def check_model(config: Any, model_type: str) -> None:
    """What the configurations of all of Meta's families have.

    :raises ConfigError: A field cannot be honoured.
    """
    if config.model_type != model_type:
        raise ConfigError(f"model config: `model_type` must be {model_type}, but is {config.model_type!r}.")
    for name in ("sonar_embed_dim", "max_seq_len", "model_dim"):
        if getattr(config, name) < 1:
            raise ConfigError(f"model config: `{name}` must be at least 1, but is {getattr(config, name)}.")
    config.frontend.check()


def check_probability(value: float, field: str) -> None:
    """:raises ConfigError: ``value`` is not in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"model config: `{field}` must be in [0, 1), but is {value}.")


def check_choices(where: str, **choices: tuple[object, Any]) -> None:
    """
    :param choices: By the name of a field: its value, and the ``Literal`` of what it may be.
    :raises ConfigError: Another value.
    """
    for name, (value, literal) in choices.items():
        if value not in get_args(literal):
            raise ConfigError(f"model config: `{where}.{name}`: {unknown_name('choice', str(value), get_args(literal))}")
