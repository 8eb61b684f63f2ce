"""The causal transformer of Meta's release: its two-tower models read the past with one, its base model is one.

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one), C concept_dim, M model_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import Module, ModuleList, Parameter

from lexalcm.layout import DocumentLayout
from lexalcm.models.layers.attention import CachedLayer, CausalSelfAttention, MultiheadProjections, RotaryTable
from lexalcm.models.layers.dropout import Dropout
from lexalcm.models.layers.feed_forward import FeedForward, SwiGLU, create_activation
from lexalcm.models.layers.norm_styles import create_norm
from lexalcm.models.layers.positions import LearnedPositions, SinePositions
from lexalcm.models.layers.precision import PreciseLayerNorm, RMSNorm, precise_linear
from lexalcm.models.layers.projection import QKV_GAIN, create_linear, initialize, normalize_weight
from lexalcm.models.layers.residual import Residual
from lexalcm.models.layers.transformer_config import FrontendConfig, ProjectionConfig, TransformerConfig

AttentionT = TypeVar("AttentionT", bound=MultiheadProjections)


class CausalTransformerLayer(Module):
    """Causal attention and a feed-forward network, normed before or after."""

    def __init__(self, config: TransformerConfig, model_dim: int) -> None:
        super().__init__()
        norm = partial(create_norm, config.layer_normalization_style, model_dim)
        self.post_norm = config.norm_order_style == "post"
        self.self_attn = create_attention(CausalSelfAttention, config, model_dim)
        self.self_attn_layer_norm = norm()
        self.self_attn_norm = norm() if config.norm_order_style == "normformer" else None
        self.ffn = create_feed_forward(config, model_dim)
        self.ffn_layer_norm = norm()
        self.residual = Residual(config.dropout_p)
        self.residual_scale = None
        if config.scale_residual is not None:
            self.residual_scale = Parameter(torch.full((model_dim,), float(config.scale_residual)))

    def forward(
        self, x: Tensor, layout: DocumentLayout, rotary: RotaryTable | None, cached: CachedLayer | None = None
    ) -> Tensor:
        h = x if self.post_norm else self.self_attn_layer_norm(x)
        h = self.self_attn(h, layout, rotary, cached)
        x = self.residual(x, h if self.self_attn_norm is None else self.self_attn_norm(h))
        if self.post_norm:
            x = self.self_attn_layer_norm(x)
        h = self.ffn(x if self.post_norm else self.ffn_layer_norm(x))
        x = self.residual(x if self.residual_scale is None else self.residual_scale * x, h)
        return self.ffn_layer_norm(x) if self.post_norm else x


class CausalTransformer(Module):
    """The stack, with the norm and the dropout behind it."""

    def __init__(self, config: TransformerConfig, model_dim: int) -> None:
        super().__init__()
        self.layers = ModuleList(CausalTransformerLayer(config, model_dim) for _ in range(config.num_layers))
        self.layer_norm = create_norm(config.layer_normalization_style, model_dim) if config.has_final_norm else None
        self.final_dropout = Dropout(config.final_dropout_p)
        self._head_dim = model_dim // config.num_attn_heads
        self._rope_theta = config.rope_theta if config.pos_embedding_style == "rope" else None

    def forward(
        self, x: Tensor, layout: DocumentLayout, positions: Tensor, cached: Sequence[CachedLayer] | None = None
    ) -> Tensor:
        """
        :param positions: int64 ``[*P]``; those of ``layout``, later ones when there is something cached.
        """
        rotary = rotary_table(positions, self._head_dim, self._rope_theta, x)
        for i, layer in enumerate(self.layers):
            x = layer(x, layout, rotary, None if cached is None else cached[i])
        return self.final_dropout(x if self.layer_norm is None else self.layer_norm(x))


class ConceptFrontend(Module):
    """A linear layer, absolute positions if the tower has any, dropout: the door of concepts into a tower."""

    def __init__(
        self,
        config: FrontendConfig,
        tower: TransformerConfig,
        *,
        concept_dim: int,
        model_dim: int,
        max_seq_len: int,
        scale: float = 1.0,
    ) -> None:
        """:param scale: Factor of the input."""
        super().__init__()
        self.scale = scale
        self.pre_linear = create_linear(
            concept_dim,
            model_dim,
            bias=config.pre_linear_bias,
            init=config.pre_linear_init_fn,
            weight_normalization=config.weight_normalization,
        )
        self.pos_encoder = create_positions(tower, model_dim, max_seq_len, std=config.embedding_std)
        self.dropout = Dropout(config.dropout_p)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = self.pre_linear(x if self.scale == 1.0 else x * self.scale)
        return self.dropout(x if self.pos_encoder is None else self.pos_encoder(x, positions))


class Projection(Module):
    """A linear layer in float32 and an activation if one is asked for."""

    def __init__(self, in_dim: int, out_dim: int, config: ProjectionConfig) -> None:
        super().__init__()
        self.fc = create_linear(
            in_dim,
            out_dim,
            bias=config.linear_bias,
            init=config.linear_init_fn,
            weight_normalization=config.weight_normalization,
        )
        self.activation_fn = None if config.activation_name is None else create_activation(config.activation_name)

    def forward(self, x: Tensor) -> Tensor:
        """:returns: float32 at least."""
        x = precise_linear(x, self.fc)
        return x if self.activation_fn is None else self.activation_fn(x)


def compiled_parts(model: Module) -> list[Module]:
    """The parts of a model made of these layers that take and return tensors alone."""
    kinds = (RMSNorm, PreciseLayerNorm, Residual, SwiGLU, FeedForward, Projection)
    parts = [module for module in model.modules() if isinstance(module, kinds)]
    inside = {child for part in parts for child in part.modules() if child is not part}
    return [part for part in parts if part not in inside]


def create_attention(kls: type[AttentionT], config: TransformerConfig, model_dim: int) -> AttentionT:
    """Makes an attention with the biases, norms, initialisation and weight normalisation of the configuration."""
    attention = kls(
        model_dim,
        config.num_attn_heads,
        bias=True,
        output_bias=config.mha_output_proj_bias,
        dropout_p=config.attention_dropout_p,
        qk_norm=partial(create_norm, config.layer_normalization_style) if config.enable_qk_layernorm else None,
    )
    for layer in (attention.q_proj, attention.k_proj, attention.v_proj):
        initialize(layer, "xavier", gain=QKV_GAIN)
        if config.mha_qkv_weight_normalization:
            normalize_weight(layer)
    initialize(attention.output_proj, config.attention_output_init_fn)
    if config.mha_output_weight_normalization:
        normalize_weight(attention.output_proj)
    return attention


def create_feed_forward(config: TransformerConfig, model_dim: int) -> Module:
    if config.use_swiglu:
        return SwiGLU(model_dim, config.ffn_width)
    inner_norm = config.norm_order_style == "normformer"
    return FeedForward(model_dim, config.ffn_width, config.ffn_inner_activation_name, inner_norm=inner_norm)


def create_positions(config: TransformerConfig, model_dim: int, max_seq_len: int, *, std: float) -> Module | None:
    """Makes the absolute positions of a tower, ``None`` if it has none."""
    if config.pos_embedding_style == "learned":
        return LearnedPositions(max_seq_len, model_dim, std=std)
    return SinePositions() if config.pos_embedding_style == "sine" else None


def rotary_table(positions: Tensor, head_dim: int, theta: float | None, x: Tensor) -> RotaryTable | None:
    """The table of a tower whose ``rope_theta`` is in use, else ``None``; as precise as ``x`` needs."""
    return None if theta is None else RotaryTable(positions, head_dim, theta=theta, dtype=x.dtype)
