"""Attention over documents: causal self-attention, cross-attention to a document's past, and own-position attention.

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one), M model_dim, H heads, E head dim, K noise
draws, R rows and T columns of a bucket.

Neither mask nor padding mask is ever built. Documents are laid out in rows padded on the right, so a causal query
never reaches a padding slot; and "the zero vector and the concepts before mine" is plain causal attention over keys
that are moved one position to the right, with the zero vector first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from lexalcm.layout import DocumentLayout
from lexalcm.models.layers.precision import at_least_float32


class RotaryTable:
    """Turns by ``p * theta^(-2i / E)`` for the positions of one batch; channels (2i, 2i + 1) are one complex number."""

    def __init__(self, positions: Tensor, head_dim: int, *, theta: float, dtype: torch.dtype) -> None:
        """:param positions: int64 ``[*P]``."""
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        exponent = torch.arange(0, head_dim, 2, dtype=dtype, device=positions.device) / head_dim
        angles = (positions.to(dtype).unsqueeze(-1) * theta**-exponent).unsqueeze(-2)
        self.turns = torch.polar(torch.ones_like(angles), angles)

    def rotate(self, x: Tensor) -> Tensor:
        """Rotates ``[*P, H, E]`` in float32 and returns it in its own dtype."""
        pairs = torch.view_as_complex(at_least_float32(x).unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.turns).flatten(-2).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention on ``[..., T, H, E]`` tensors; ``k`` and ``v`` may lack ``q``'s leading dimension.

    :param mask: bool ``[T_query, T_key]``, True where a query may look.
    """
    if q.dim() > k.dim():
        k, v = (x.expand(q.size(0), *x.shape) for x in (k, v))
    lead = q.shape[:-3]
    q, k, v = (x.reshape(-1, *x.shape[-3:]).transpose(1, 2) for x in (q, k, v))
    with _without_cudnn(q.device):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).unflatten(0, lead)


@contextmanager
def _without_cudnn(device: torch.device) -> Iterator[None]:
    """cuDNN's attention plans anew for every shape, while hardly any two batches have buckets of the same shapes: on an
    H200 a step took 0.6 s instead of 0.1 s."""
    if device.type != "cuda" or not torch.backends.cuda.cudnn_sdp_enabled():
        yield
        return
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


def attend_causally(q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout) -> Tensor:
    """Position i of each document attends to positions 0..i.

    :param q: ``[*P, H, E]`` or ``[K, *P, H, E]``.  :param k: ``[*P, H, E]``, as ``v``.  :returns: The shape of ``q``.
    """
    draws = q.dim() - k.dim()
    rows = [attend(*qkv, causal=True) for qkv in zip(layout.rows(q, dim=draws), layout.rows(k), layout.rows(v))]
    return layout.unrows(rows, dim=draws)


class MultiheadProjections(Module):
    """The four projections every attention has. No biases unless asked for."""

    def __init__(self, model_dim: int, num_heads: int, *, bias: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = Linear(model_dim, model_dim, bias=bias)
        self.k_proj = Linear(model_dim, model_dim, bias=bias)
        self.v_proj = Linear(model_dim, model_dim, bias=bias)
        self.output_proj = Linear(model_dim, model_dim, bias=bias)

    def heads(self, projection: Linear, x: Tensor) -> Tensor:
        return projection(x).unflatten(-1, (self.num_heads, -1))

    def merge(self, x: Tensor) -> Tensor:
        return self.output_proj(x.flatten(-2))


class CausalSelfAttention(MultiheadProjections):
    """Causal attention within each document, queries and keys rotated after their projections."""

    def forward(self, x: Tensor, layout: DocumentLayout, rotary: RotaryTable, cache: KeyValueCache | None) -> Tensor:
        q = rotary.rotate(self.heads(self.q_proj, x))
        k = rotary.rotate(self.heads(self.k_proj, x))
        v = self.heads(self.v_proj, x)
        if cache is None:
            return self.merge(attend_causally(q, k, v, layout))
        past = cache.length
        k, v = cache.append(k, v)
        may_look = torch.ones(q.size(1), k.size(1), dtype=torch.bool, device=q.device).tril(past)
        return self.merge(attend(q, k, v, mask=may_look))


class PastCrossAttention(MultiheadProjections):
    """Attention of position i to a zero vector and the contexts of positions < i of its document."""

    def keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Projects contexts ``[..., M]`` to keys and values ``[..., H, E]``."""
        return self.heads(self.k_proj, context), self.heads(self.v_proj, context)

    def forward(
        self, x: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout | None, dropped: bool | Tensor | None
    ) -> Tensor:
        """
        :param k: With a layout: keys of the shifted context ``[*P, H, E]`` for queries at every position. Without: all
            keys ``[B, 1 + T, H, E]``, the zero vector's first, for queries that see the whole past.
        :param dropped: True, or True where (``[*P]``): only the zero vector is seen. Without biases its value is zero.
        """
        if dropped is True:
            return torch.zeros_like(x)
        q = self.heads(self.q_proj, x)
        seen = attend(q, k, v) if layout is None else attend_causally(q, k, v, layout)
        if isinstance(dropped, Tensor):
            seen = seen.masked_fill(dropped[..., None, None], 0.0)
        return self.merge(seen)


class OwnPositionAttention(MultiheadProjections):
    """Self-attention that sees its own position only. The softmax of one score is 1, so what is left is ``W_o W_v x``;
    the query and key projections stand in the checkpoint and have no influence."""

    def forward(self, x: Tensor) -> Tensor:
        return self.output_proj(self.v_proj(x))


class KeyValueCache:
    """Keys and values ``[B, T, H, E]`` of the positions seen so far, one object an attention layer."""

    def __init__(self) -> None:
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    @property
    def length(self) -> int:
        return 0 if self._k is None else self._k.size(1)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions and returns all keys and values."""
        self._k = k if self._k is None else torch.cat([self._k, k], dim=1)
        self._v = v if self._v is None else torch.cat([self._v, v], dim=1)
        return self._k, self._v
