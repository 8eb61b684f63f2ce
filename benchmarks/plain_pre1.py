"""LexaLCM-Pre1 written down plainly, on the weights of the fast model: what benchmarks and tests compare it with.

Padded rows, a modulator evaluated at every position, the denoiser's self-attention over all T x T pairs under an identity
mask, cross-attention under an explicit mask. Same mathematics, same parameters, dropout left out.

Shapes: B rows, T columns, C concept_dim, M model_dim, H heads, E head dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lexalcm.models.pre1.model import Pre1Model


def plain_forward(
    model: Pre1Model, concepts_BTC: Tensor, noisy_BTC: Tensor, timesteps_BT: Tensor, lengths: list[int]
) -> Tensor:
    """The network's output ``[B, T, C]`` at every position; what stands at padding is meaningless."""
    width = timesteps_BT.size(1)
    column = torch.arange(width)
    real_BT = column[None, :] < torch.tensor(lengths)[:, None]
    causal_TT = column[:, None] >= column[None, :]
    own_TT = column[:, None] == column[None, :]
    context_mask = (causal_TT[None] & real_BT[:, None, :])[:, None]
    # Query i sees the zero vector in column 0 and the contexts in columns 1..i.
    past_TU = column[:, None] >= torch.arange(width + 1)[None, :]
    key_real_BU = F.pad(real_BT, (1, 0), value=True)
    cross_mask = (past_TU[None] & key_real_BU[:, None, :])[:, None]
    keys = _context(model, concepts_BTC, context_mask)
    return plain_denoise(model, noisy_BTC, timesteps_BT, keys, cross_mask, own_TT)


def plain_context(model: Pre1Model, concepts_BTC: Tensor) -> Tensor:
    """What the denoiser reads of equally long documents: ``[B, U, M]``."""
    causal = torch.ones(concepts_BTC.size(1), concepts_BTC.size(1), dtype=torch.bool).tril()
    return _context(model, concepts_BTC, causal)


def _context(model: Pre1Model, concepts_BTC: Tensor, mask: Tensor) -> Tensor:
    h = _frontend(model.context_frontend, concepts_BTC)
    for layer in model.contextualizer.layers:
        x = _rms_norm(layer.self_attn_layer_norm, h)
        h = h + _attention(layer.self_attn, x, x, mask, rotate=True)
        h = h + layer.ffn(_rms_norm(layer.ffn_layer_norm, h))
    h = _rms_norm(model.contextualizer.layer_norm, h)
    latent = _rms_norm(model.latent_bridge.norm, model.context_down_proj(h))
    context = h + _frontend(model.denoiser_frontend, F.gelu(model.latent_bridge.proj(latent)))
    return F.pad(context, (0, 0, 1, 0))


def plain_denoise(
    model: Pre1Model, noisy: Tensor, timesteps: Tensor, keys: Tensor, may_see: Tensor, own: Tensor
) -> Tensor:
    """The denoiser on ``[B, T, C]``, keys and values of ``keys`` ``[B, U, M]`` projected in every layer.

    :param may_see: Which key each position sees, broadcasts to ``[B, 1, T, U]``.  :param own: The same of itself.
    """
    embedding = F.silu(model.timestep_encoder(timesteps))
    u = _frontend(model.denoiser_frontend, noisy)
    for layer in model.denoiser.layers:
        scale, shift, gate = layer.self_attn_modulator(embedding).chunk(3, dim=-1)
        x = (1 + scale) * _rms_norm(layer.self_attn_layer_norm, u) + shift
        u = u + gate * _attention(layer.self_attn, x, x, own, rotate=False)
        scale, shift, gate = layer.cross_attn_modulator(embedding).chunk(3, dim=-1)
        x = (1 + scale) * _rms_norm(layer.cross_attn_layer_norm, u) + shift
        u = u + gate * _attention(layer.cross_attn, x, keys, may_see, rotate=False)
        scale, shift, gate = layer.ffn_modulator(embedding).chunk(3, dim=-1)
        u = u + gate * layer.ffn((1 + scale) * _rms_norm(layer.ffn_layer_norm, u) + shift)
    return model.output_proj(_rms_norm(model.denoiser.layer_norm, u))


def _frontend(module: torch.nn.Module, x: Tensor) -> Tensor:
    return F.silu(module.proj(module.norm(x)))


def _rms_norm(module: torch.nn.Module, x: Tensor) -> Tensor:
    return F.rms_norm(x, (module.dim,), module.weight, module.eps)


def _attention(module: torch.nn.Module, q: Tensor, kv: Tensor, mask: Tensor, *, rotate: bool) -> Tensor:
    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2)

    query, key, value = heads(module.q_proj(q)), heads(module.k_proj(kv)), heads(module.v_proj(kv))
    if rotate:
        query, key = _rope(query), _rope(key)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return module.output_proj(out.transpose(1, 2).flatten(-2))


def _rope(x: Tensor) -> Tensor:
    dim = x.size(-1)
    frequency = 10000.0 ** (-torch.arange(0, dim, 2, dtype=x.dtype) / dim)
    angle = torch.arange(x.size(-2), dtype=x.dtype)[:, None] * frequency
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()], dim=-1)
    return turned.flatten(-2)
