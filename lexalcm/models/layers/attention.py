"""Attention over documents: causal self-attention, cross-attention to a document's past, and own-position attention.

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one; ``*Q`` where the denoiser runs), M model_dim,
H heads, E head dim, K noise draws, R rows and T columns of a bucket.

Neither mask nor padding mask is ever built. Documents are laid out in rows padded on the right, so a causal query
never reaches a padding slot; and "the zero vector and the concepts before mine" is plain causal attention over keys
that are moved one position to the right, with the zero vector first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from lexalcm.layout import DocumentLayout
from lexalcm.models.layers.key_value_cache import Growth, KeyValueCache
from lexalcm.models.layers.precision import at_least_float32, no_autocast

CachedLayer = tuple[KeyValueCache, Growth]
"""One layer's keys and values of what came before, and where the new ones go."""


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


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """Scaled dot-product attention on ``[..., T, H, E]`` tensors; ``k`` and ``v`` may lack ``q``'s leading dimension.

    :param mask: bool ``[T_query, T_key]``, True where a query may look.
    :param dropout_p: On the weights.
    """
    if q.dim() > k.dim():
        k, v = (x.expand(q.size(0), *x.shape) for x in (k, v))
    lead = q.shape[:-3]
    q, k, v = (x.reshape(-1, *x.shape[-3:]).transpose(1, 2) for x in (q, k, v))
    with _without_cudnn(q.device):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout_p)
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


def attend_causally(q: Tensor, k: Tensor, v: Tensor, layout: DocumentLayout, *, dropout_p: float = 0.0) -> Tensor:
    """Position i of each document attends to positions 0..i.

    :param q: ``[*P, H, E]`` or ``[K, *P, H, E]``.  :param k: ``[*P, H, E]``, as ``v``.  :returns: The shape of ``q``.
    """
    draws = q.dim() - k.dim()
    rows = [
        attend(*qkv, causal=True, dropout_p=dropout_p)
        for qkv in zip(layout.rows(q, dim=draws), layout.rows(k), layout.rows(v))
    ]
    return layout.unrows(rows, dim=draws)


class MultiheadProjections(Module):
    """The four projections every attention has. No biases unless asked for."""

    def __init__(
        self,
        model_dim: int,
        num_heads: int,
        *,
        bias: bool = False,
        output_bias: bool | None = None,
        dropout_p: float = 0.0,
        qk_norm: Callable[[int], Module] | None = None,
    ) -> None:
        """
        :param output_bias: Of the output projection; by default as ``bias``.
        :param dropout_p: On the attention weights.
        :param qk_norm: Makes the norms of width M that queries and keys go through before they are split into heads.
        """
        super().__init__()
        self.num_heads = num_heads
        self.dropout_p = dropout_p
        self.q_proj = Linear(model_dim, model_dim, bias=bias)
        self.k_proj = Linear(model_dim, model_dim, bias=bias)
        self.v_proj = Linear(model_dim, model_dim, bias=bias)
        self.q_layer_norm = None if qk_norm is None else qk_norm(model_dim)
        self.k_layer_norm = None if qk_norm is None else qk_norm(model_dim)
        self.output_proj = Linear(model_dim, model_dim, bias=bias if output_bias is None else output_bias)

    def queries(self, x: Tensor, rotary: RotaryTable | None = None) -> Tensor:
        """``[..., M]`` to ``[..., H, E]``."""
        return self._heads(self.q_proj(x), self.q_layer_norm, rotary)

    def keys_and_values(self, x: Tensor, rotary: RotaryTable | None = None) -> tuple[Tensor, Tensor]:
        """``[..., M]`` to keys and values ``[..., H, E]``."""
        return self._heads(self.k_proj(x), self.k_layer_norm, rotary), self._heads(self.v_proj(x))

    def merge(self, x: Tensor) -> Tensor:
        return self.output_proj(x.flatten(-2))

    def _heads(self, x: Tensor, norm: Module | None = None, rotary: RotaryTable | None = None) -> Tensor:
        if norm is not None:
            x = norm(x).to(x.dtype)
        x = x.unflatten(-1, (self.num_heads, -1))
        return x if rotary is None else rotary.rotate(x)

    def drop_lone_weight(self, values: Tensor) -> Tensor:
        """What attention to a single key gives: its value ``[..., M]``, whose weight of 1 may be dropped in each head."""
        if self._active_dropout_p == 0.0:
            return values
        weights = F.dropout(values.new_ones(*values.shape[:-1], self.num_heads, 1), self._active_dropout_p)
        return (values.unflatten(-1, (self.num_heads, -1)) * weights).flatten(-2)

    @property
    def _active_dropout_p(self) -> float:
        return self.dropout_p if self.training else 0.0


class CausalSelfAttention(MultiheadProjections):
    """Causal attention within each document, queries and keys rotated after their projections if there is a table."""

    def forward(
        self, x: Tensor, layout: DocumentLayout, rotary: RotaryTable | None, cached: CachedLayer | None = None
    ) -> Tensor:
        """:param cached: The keys and values of what came before, and where the new ones go."""
        q = self.queries(x, rotary)
        k, v = self.keys_and_values(x, rotary)
        if cached is None:
            return self.merge(attend_causally(q, k, v, layout, dropout_p=self._active_dropout_p))
        cache, growth = cached
        k, v = cache.append(k, v, growth)
        return self.merge(attend(q, k, v, mask=growth.mask, dropout_p=self._active_dropout_p))


class PastCrossAttention(MultiheadProjections):
    """Attention of position i to a zero vector and the contexts of positions < i of its document.

    With biases the zero vector's key and value are the biases.
    """

    def forward(
        self,
        x: Tensor,
        k: Tensor,
        v: Tensor,
        layout: DocumentLayout | None,
        dropped: bool | Tensor | None,
        rotary: RotaryTable | None = None,
    ) -> Tensor:
        """
        :param x: ``[*Q, M]`` or ``[K, *Q, M]``.
        :param k: With a layout: keys of the shifted context ``[*P, H, E]``. Without: all keys ``[B, 1 + T, H, E]``, the
            zero vector's first, for queries that see the whole past.
        :param dropped: True, or True where (``[*Q]``): only the zero vector is seen.
        :param rotary: Of the queries' positions.
        """
        bias = self.v_proj.bias
        if dropped is True:
            alone = torch.zeros_like(x) if bias is None else bias.to(x.dtype).expand(x.shape)
            if bias is None and self.output_proj.bias is None:
                return alone
            return self.output_proj(self.drop_lone_weight(alone))
        q = self.queries(x, rotary)
        if layout is None:
            seen = attend(q, k, v, dropout_p=self._active_dropout_p)
        else:
            draws = q.dim() - k.dim()
            q = layout.from_queries(q, dim=draws)
            seen = layout.at_queries(attend_causally(q, k, v, layout, dropout_p=self._active_dropout_p), dim=draws)
        seen = seen.flatten(-2)
        if isinstance(dropped, Tensor):
            alone = (
                seen.new_zeros(()) if bias is None else self.drop_lone_weight(bias.to(seen.dtype).expand(seen.shape))
            )
            seen = torch.where(dropped.unsqueeze(-1), alone, seen)
        return self.output_proj(seen)

    def seen_alone(self) -> Tensor:
        """What a query gets that sees the zero vector alone, ``[M]``: the same wherever it stands."""
        weight = self.output_proj.weight
        bias = self.v_proj.bias
        return self.output_proj(weight.new_zeros(weight.size(1)) if bias is None else bias)


class OwnPositionAttention(MultiheadProjections):
    """Self-attention that sees its own position only. The softmax of one score is 1, so what is left is ``W_o W_v x``;
    the query and key projections stand in the checkpoint and have no influence."""

    def forward(self, x: Tensor) -> Tensor:
        return self.output_proj(self.drop_lone_weight(self.v_proj(x)))

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the one linear layer that both projections are, multiplied in float32 at least."""
        outer, inner = at_least_float32(self.output_proj.weight), at_least_float32(self.v_proj.weight)
        bias = None if self.output_proj.bias is None else at_least_float32(self.output_proj.bias)
        dtype = self.v_proj.weight.dtype
        with no_autocast(outer):
            if self.v_proj.bias is not None:
                moved = outer @ at_least_float32(self.v_proj.bias)
                bias = moved if bias is None else bias + moved
            return (outer @ inner).to(dtype), None if bias is None else bias.to(dtype)
