"""The parts of the published LexaLCM-Pre1 as its code computes them (specification, section 2).

Modules and parameters bear the published names, so that checkpoints load without renaming, and hooks find every
activation by its published path. No dropout is drawn. Everything runs in the dtype it is given, as there.

Shapes: B documents, T positions, S keys, C the dimension of a concept or latent, M model_dim, H heads, F timestep_dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import GELU, Identity, LayerNorm, Linear, Module, ModuleDict, ModuleList, Parameter, Sequential, SiLU

from lexalcm.models.layers.precision import at_least_float32, matmul_dtype
from lexalcm.models.pre1.original_config import OriginalConfig, Revision


class RMSNorm(Module):
    """``w x / (sqrt(mean(x^2)) + 1e-8)`` (2.1): eps stands outside the root, unlike in our models."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.to(x.dtype) * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + 1e-8)


class PreNet(Module):
    """``SiLU(W LayerNorm(x) + b)`` (2.2), ``[B, T, C]`` to ``[B, T, M]``."""

    def __init__(self, in_dim: int, model_dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(in_dim)
        self.proj = Linear(in_dim, model_dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.proj(self.norm(x)))


class PostNet(Module):
    """``W x + b`` (2.2), ``[B, T, M]`` to ``[B, T, C]``."""

    def __init__(self, model_dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = Linear(model_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class LatentBridge(Module):
    """``GELU(W RMSNorm(x) + b)``, exact (2.3)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.proj = Sequential(RMSNorm(latent_dim), Linear(latent_dim, latent_dim), GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


def sinusoid(timesteps: Tensor, feature_dim: int) -> Tensor:
    """``[sin, cos](t * 10000^(-k / (F/2)))``, sine first (2.7): floating ``[B]`` to ``[B, F]``."""
    half = feature_dim // 2
    exponent = torch.arange(half, dtype=timesteps.dtype, device=timesteps.device) / half
    angles = timesteps.unsqueeze(-1) * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimestepEmbedder(Module):
    """``lin2(SiLU(lin1(sinusoid)))`` (2.7), floating ``[B]`` to ``[B, M]``."""

    def __init__(self, feature_dim: int, model_dim: int, *, clamped: bool) -> None:
        super().__init__()
        self.lin1 = Linear(feature_dim, feature_dim)
        self.lin2 = Linear(feature_dim, model_dim)
        self.clamped = clamped

    def forward(self, timesteps: Tensor) -> Tensor:
        embedding = self.lin2(F.silu(self.lin1(sinusoid(timesteps, self.lin1.in_features))))
        return embedding.clamp(-10.0, 10.0) if self.clamped else embedding


def rotary_tables(num_positions: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine ``[1, T, M]`` of ``p * 10000^(-(j mod M/2) / (M/2))`` (2.5), in the dtype of ``x [..., M]``."""
    half, dtype = x.size(-1) // 2, at_least_float32(x).dtype
    exponent = torch.arange(half, dtype=dtype, device=x.device) / half
    positions = torch.arange(num_positions, dtype=dtype, device=x.device)
    angles = (positions.unsqueeze(-1) * 10000.0**-exponent).repeat(1, 2).unsqueeze(0)
    return angles.sin().to(x.dtype), angles.cos().to(x.dtype)


def quarter_turn(x: Tensor) -> Tensor:
    """Each pair of channels (2i, 2i + 1) becomes (-x[2i + 1], x[2i])."""
    return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)


def rotate(x: Tensor) -> Tensor:
    """The published RoPE over ``[B, T, M]``. Pairs are neighbours, while the angles are laid out for halves: the two
    members of a pair turn at different speeds, so it is not quite a rotation (2.5)."""
    sin, cos = rotary_tables(x.size(1), x)
    return x * cos + quarter_turn(x) * sin


def seen_keys(real: Tensor, num_queries: int) -> Tensor:
    """Which keys a query may look at: those at or before it that are real.

    :param real: bool ``[B, S]``.  :returns: bool ``[B, 1, T, S]``.
    """
    causal = torch.ones(num_queries, real.size(1), dtype=torch.bool, device=real.device).tril()
    return causal & real[:, None, None, :]


class Attention(Module):
    """Scaled dot-product attention without biases (2.6). Where no key may be seen, all are, and equally."""

    def __init__(self, model_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.w_q, self.w_k, self.w_v, self.w_o = (Linear(model_dim, model_dim, bias=False) for _ in range(4))

    def probabilities(self, query: Tensor, key: Tensor, seen: Tensor) -> Tensor:
        """``[B, H, T, S]``."""
        q, k = self._heads(self.w_q(query)), self._heads(self.w_k(key))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))
        return scores.masked_fill(~seen, -1e9).softmax(dim=-1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """
        :param query: ``[B, T, M]``.
        :param key: ``[B, S, M]``, as ``value``.
        :param seen: bool ``[B, 1, T, S]``.
        """
        mixed = self.probabilities(query, key, seen) @ self._heads(self.w_v(value))
        return self.w_o(mixed.transpose(1, 2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class ContextSelfAttention(Module):
    """Attention whose queries and keys are rotated before their projections, over the full width."""

    def __init__(self, config: OriginalConfig) -> None:
        super().__init__()
        self.attn = ModuleDict({"core": Attention(config.model_dim, config.num_heads)})

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        rotated = rotate(x)
        return self.attn["core"](rotated, rotated, x, seen)


class SwiGLU(Module):
    """``linear2(SiLU(g) * u)`` with ``g, u`` the halves of ``linear1(x)`` (2.4)."""

    def __init__(self, config: OriginalConfig) -> None:
        super().__init__()
        self.linear1 = Linear(config.model_dim, 2 * config.ffn_dim)
        self.linear2 = Linear(config.ffn_dim, config.model_dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, inner = self.linear1(x).chunk(2, dim=-1)
        return self.linear2(F.silu(gate) * inner)


class ResidualConnection(Module):
    """``x + scale * f(RMSNorm(x))`` (2.10), or ``x + scale * f(x)``."""

    def __init__(self, model_dim: int, scale: float, *, normed: bool = True) -> None:
        super().__init__()
        self.norm = RMSNorm(model_dim) if normed else Identity()
        self.scale = scale

    def forward(self, x: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        return x + self.scale * f(self.norm(x))


class ContextualizerLayer(Module):
    """Causal attention, then SwiGLU."""

    def __init__(self, config: OriginalConfig, revision: Revision) -> None:
        super().__init__()
        self.self_attention = ContextSelfAttention(config)
        self.mlp = SwiGLU(config)
        scale = config.num_context_layers**-0.5 if revision.scaled_context else 1.0
        self.residual_connections = ModuleList(ResidualConnection(config.model_dim, scale) for _ in range(2))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        attention, mlp = self.residual_connections
        x = attention(x, lambda h: self.self_attention(h, seen))
        return mlp(x, self.mlp)


class ContextualizerTower(Module):
    """All layers and a norm."""

    def __init__(self, config: OriginalConfig, revision: Revision) -> None:
        super().__init__()
        self.layers = ModuleList(ContextualizerLayer(config, revision) for _ in range(config.num_context_layers))
        self.norm = RMSNorm(config.model_dim)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """:param x: ``[B, T, M]``.  :param real: bool ``[B, T]``."""
        seen = seen_keys(real, x.size(1))
        for layer in self.layers:
            x = layer(x, seen)
        return self.norm(x).to(matmul_dtype(x))


class Modulator(Module):
    """``x + a f((1 + g) x + b)`` with ``g, b, a`` from the timestep (2.8, 2.9)."""

    def __init__(self, model_dim: int, *, clamped: bool) -> None:
        super().__init__()
        self.ff = Sequential(SiLU(), Linear(model_dim, 3 * model_dim))
        self.clamped = clamped

    def chunks(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, M]`` to scale, shift and gate ``[B, M]``, in this order and not clamped."""
        scale, shift, gate = self.ff(embedding).chunk(3, dim=-1)
        return scale, shift, gate

    def forward(self, x: Tensor, embedding: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        scale, shift, gate = (chunk.unsqueeze(1) for chunk in self.chunks(embedding))
        if self.clamped:
            scale, shift, gate = scale.clamp(-3.0, 3.0), shift.clamp(-5.0, 5.0), gate.clamp(-3.0, 3.0)
        return x + gate * f((1.0 + scale) * x + shift)


class DenoiserSelfAttention(Module):
    """Causal attention over all noisy positions, without rotation."""

    def __init__(self, config: OriginalConfig, revision: Revision) -> None:
        super().__init__()
        self.modulator = Modulator(config.model_dim, clamped=revision.clamped_conditioning)
        self.attn = ModuleDict({"core": Attention(config.model_dim, config.num_heads)})

    def forward(self, x: Tensor, embedding: Tensor, seen: Tensor) -> Tensor:
        return self.modulator(x, embedding, lambda h: self.attn["core"](h, h, h, seen))


class DenoiserCrossAttention(Module):
    """Position i attends to a zero vector and to the contexts of positions < i."""

    def __init__(self, config: OriginalConfig, revision: Revision) -> None:
        super().__init__()
        self.modulator = Modulator(config.model_dim, clamped=revision.clamped_conditioning)
        self.attn = ModuleDict({"core": Attention(config.model_dim, config.num_heads)})

    def memory(self, context: Tensor, real: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """The zero vector and the contexts ``[B, 1 + T, M]``, and which are seen: bool ``[B, 1, T, 1 + T]``."""
        memory, present = F.pad(context, (0, 0, 1, 0)), F.pad(real, (1, 0), value=True)
        if keep is not None:
            # The published code zeroes the others too, which changes nothing: beside the zero vector's score of 0, what
            # is masked weighs exactly 0.
            present = present & keep
        return memory, seen_keys(present, context.size(1))

    def forward(self, x: Tensor, embedding: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        return self.modulator(x, embedding, lambda h: self.attn["core"](h, memory, memory, seen))


class DenoiserSwiGLU(SwiGLU):
    """SwiGLU, modulated and bounded."""

    def __init__(self, config: OriginalConfig, revision: Revision) -> None:
        super().__init__(config)
        self.modulator = Modulator(config.model_dim, clamped=revision.bounded_ffn)
        self.bounded = revision.bounded_ffn

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        return self.modulator(x, embedding, self._branch)

    def _branch(self, h: Tensor) -> Tensor:
        y = super().forward(h)
        return 5.0 * torch.tanh(y) if self.bounded else y


class DenoiserLayer(Module):
    """Self-attention, cross-attention and SwiGLU. Each adds its input itself, and is added to it once more (2.11)."""

    def __init__(self, config: OriginalConfig, revision: Revision) -> None:
        super().__init__()
        self.self_attention = DenoiserSelfAttention(config, revision)
        self.cross_attention = DenoiserCrossAttention(config, revision)
        self.mlp = DenoiserSwiGLU(config, revision)
        normed = revision.denoiser_norms
        scale = config.num_denoiser_layers**-0.5 if normed else 1.0
        self.residual_connections = ModuleList(
            ResidualConnection(config.model_dim, scale, normed=normed) for _ in range(3)
        )

    def forward(self, x: Tensor, context: Tensor, embedding: Tensor, real: Tensor, keep: Tensor | None) -> Tensor:
        own, cross, mlp = self.residual_connections
        seen = seen_keys(real, x.size(1))
        x = own(x, lambda h: self.self_attention(h, embedding, seen))
        memory, past = self.cross_attention.memory(context, real, keep)
        x = cross(x, lambda h: self.cross_attention(h, embedding, memory, past))
        return mlp(x, lambda h: self.mlp(h, embedding))


class DenoiserTower(Module):
    """All layers and a norm."""

    def __init__(self, config: OriginalConfig, revision: Revision) -> None:
        super().__init__()
        self.layers = ModuleList(DenoiserLayer(config, revision) for _ in range(config.num_denoiser_layers))
        self.final_norm = RMSNorm(config.model_dim)

    def forward(
        self,
        noisy: Tensor,
        context: Tensor,
        embedding: Tensor,
        real: Tensor,
        row_keep: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """
        :param noisy: ``[B, T, M]``, as ``context``.
        :param embedding: Of the timestep, ``[B, M]``.
        :param real: bool ``[B, T]``.
        :param row_keep: For each layer, bool ``[B, 1 + T]``: what cross-attention sees of zero vector and contexts.
        """
        x = noisy
        for i, layer in enumerate(self.layers):
            x = layer(x, context, embedding, real, None if row_keep is None else row_keep[i])
        return self.final_norm(x).to(matmul_dtype(x))
