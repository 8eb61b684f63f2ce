"""Meta's two-tower model written down plainly, on the weights of the fast model: what benchmarks and tests compare it with.

Padded rows, a modulator evaluated at every position, the denoiser's self-attention over all T x T pairs under an identity
mask, cross-attention under an explicit mask (specification, section 1). Dropout left out.

Shapes: B rows, T columns, C concept_dim, M model_dim, H heads, E head dim; U = T + 1 keys, the zero row's first.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from lexalcm.models.layers.transformer_config import TransformerConfig
from lexalcm.models.two_tower.model import TwoTowerDiffusionLCM


def plain_forward(
    model: TwoTowerDiffusionLCM,
    concepts_BTC: Tensor,
    noisy_BTC: Tensor,
    timesteps_BT: Tensor,
    lengths: list[int],
    dropped_BT: Tensor | None = None,
) -> Tensor:
    """The network's output ``[B, T, C]`` at every position; what stands at padding is meaningless."""
    config = model.config
    width = timesteps_BT.size(1)
    column = torch.arange(width)
    real_BT = column[None, :] < torch.tensor(lengths)[:, None]
    causal = (column[:, None] >= column[None, :])[None] & real_BT[:, None, :]
    context = plain_transformer(model.context_encoder, config.context_encoder, _enter(model, concepts_BTC), causal)
    keys = torch.cat([torch.zeros_like(context[:, :1]), context], dim=1)
    may_see = (column[:, None] >= torch.arange(width + 1))[None] & F.pad(real_BT, (1, 0), value=True)[:, None, :]
    if dropped_BT is not None:
        may_see = may_see & ~(dropped_BT[..., None] & (torch.arange(width + 1) > 0))
    own = (column[:, None] == column[None, :])[None]
    return plain_denoise(model, noisy_BTC, timesteps_BT, keys, may_see, own)


def plain_context(model: TwoTowerDiffusionLCM, concepts_BTC: Tensor) -> Tensor:
    """What the denoiser reads of equally long documents: ``[B, U, M]``."""
    causal = torch.ones(1, concepts_BTC.size(1), concepts_BTC.size(1), dtype=torch.bool).tril()
    tower, config = model.context_encoder, model.config.context_encoder
    return F.pad(plain_transformer(tower, config, _enter(model, concepts_BTC), causal), (0, 0, 1, 0))


def plain_denoise(
    model: TwoTowerDiffusionLCM, noisy: Tensor, timesteps: Tensor, keys: Tensor, may_see: Tensor, own: Tensor
) -> Tensor:
    """The denoiser on ``[B, T, C]``, keys and values of ``keys`` ``[B, U, M]`` projected in every layer.

    :param may_see: Which key each position sees, ``[B, T, U]``.  :param own: The same of itself, ``[1, T, T]``.
    """
    tower, config = model.denoiser, model.config.denoiser
    embedding = F.silu(_embed_time(tower.embed_time, timesteps, noisy.dtype))
    x = _project(tower.initial_proj, noisy)
    if tower.pos_encoder is not None:
        x = _absolute(tower.pos_encoder, x)
    theta = config.rope_theta if config.pos_embedding_style == "rope" else None
    for layer in tower.layers:
        parts = layer.modulator.fc(embedding).chunk(9, dim=-1)
        h = _norm(layer.self_attn_layer_norm, x) * (1 + parts[1]) + parts[0]
        h = _attention(layer.self_attn, h, h, own, theta)
        x = x + parts[2] * (h if layer.self_attn_norm is None else _norm(layer.self_attn_norm, h))
        h = _norm(layer.cross_attention_layer_norm, x) * (1 + parts[4]) + parts[3]
        x = x + parts[5] * _attention(layer.cross_attention, h, keys, may_see, theta)
        h = _norm(layer.ffn_layer_norm, x) * (1 + parts[7]) + parts[6]
        x = x + parts[8] * _feed_forward(layer.ffn, h)
    return _project(tower.final_proj, _norm(tower.layer_norm, x))


def plain_transformer(tower: Module, config: TransformerConfig, x: Tensor, mask: Tensor) -> Tensor:
    """The causal transformer on ``[B, T, M]`` under a mask ``[B, T, T]``."""
    theta = config.rope_theta if config.pos_embedding_style == "rope" else None
    for layer in tower.layers:
        scale = 1.0 if layer.residual_scale is None else layer.residual_scale
        if config.norm_order_style == "post":
            x = _norm(layer.self_attn_layer_norm, x + _attention(layer.self_attn, x, x, mask, theta))
            x = _norm(layer.ffn_layer_norm, scale * x + _feed_forward(layer.ffn, x))
            continue
        h = _norm(layer.self_attn_layer_norm, x)
        h = _attention(layer.self_attn, h, h, mask, theta)
        x = x + (h if layer.self_attn_norm is None else _norm(layer.self_attn_norm, h))
        x = scale * x + _feed_forward(layer.ffn, _norm(layer.ffn_layer_norm, x))
    return x if tower.layer_norm is None else _norm(tower.layer_norm, x)


def _enter(model: TwoTowerDiffusionLCM, x: Tensor) -> Tensor:
    x = model.encoder_frontend.pre_linear(x)
    return x if model.encoder_frontend.pos_encoder is None else _absolute(model.encoder_frontend.pos_encoder, x)


def _absolute(module: Module, x: Tensor) -> Tensor:
    width, dim = x.shape[-2:]
    weight = getattr(module, "weight", None)
    if weight is not None:
        return x + weight[:width]
    half = dim // 2
    frequency = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half, dtype=x.dtype))
    angle = torch.arange(width, dtype=x.dtype)[:, None] * frequency
    return x + torch.cat([angle.sin(), angle.cos()], dim=-1)


def _embed_time(module: Module, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
    half = module.feature_dim // 2
    angle = timesteps[..., None].to(dtype) * torch.exp(-math.log(10000.0) * torch.arange(half, dtype=dtype) / half)
    return module.fc2(F.silu(module.fc1(torch.cat([angle.cos(), angle.sin()], dim=-1))))


def _project(module: Module, x: Tensor) -> Tensor:
    x = module.fc(x)
    return x if module.activation_fn is None else module.activation_fn(x)


def _norm(module: Module, x: Tensor) -> Tensor:
    if hasattr(module, "dim"):
        return F.rms_norm(x, (module.dim,), module.weight, module.eps)
    return F.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _feed_forward(module: Module, x: Tensor) -> Tensor:
    if hasattr(module, "gate_proj"):
        return module.output_proj(F.silu(module.gate_proj(x)) * module.inner_proj(x))
    x = module.inner_activation(module.inner_proj(x))
    return module.output_proj(x if module.inner_layer_norm is None else _norm(module.inner_layer_norm, x))


def _attention(module: Module, q: Tensor, kv: Tensor, mask: Tensor, theta: float | None) -> Tensor:
    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2)

    query, key = module.q_proj(q), module.k_proj(kv)
    if module.q_layer_norm is not None:
        query, key = _norm(module.q_layer_norm, query), _norm(module.k_layer_norm, key)
    query, key, value = heads(query), heads(key), heads(module.v_proj(kv))
    if theta is not None:
        query, key = _rope(query, theta), _rope(key, theta)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])
    return module.output_proj(out.transpose(1, 2).flatten(-2))


def _rope(x: Tensor, theta: float) -> Tensor:
    dim = x.size(-1)
    frequency = theta ** (-torch.arange(0, dim, 2, dtype=x.dtype) / dim)
    angle = torch.arange(x.size(-2), dtype=x.dtype)[:, None] * frequency
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()], dim=-1)
    return turned.flatten(-2)
