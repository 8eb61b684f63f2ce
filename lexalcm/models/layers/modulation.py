"""AdaLN modulation, computed once for each distinct timestep and gathered.

Shapes: S rows of the noise schedule, M model_dim, ``*P`` positions (``N``, ``B, T`` or ``K, N``).

A modulator depends on the timestep alone, of which a schedule has about a hundred, while a batch has tens of thousands
of positions: evaluating it for every position would be 22% of Pre1's FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import Linear

from lexalcm.models.layers.multiply_add import multiply_add
from lexalcm.models.layers.precision import PreciseLayerNorm, RMSNorm, at_least_float32, matmul_dtype


@dataclass(frozen=True)
class Modulation:
    """``f`` sees ``scale * x + shift``, and its output is multiplied by ``gate``; each broadcasts to ``[*P, M]``."""

    scale: Tensor
    """1 + the modulator's own scale."""

    shift: Tensor

    gate: Tensor


class TimestepConditioning:
    """The timestep embeddings of one batch: either a table of timesteps and an index into it, or as given."""

    def __init__(self, timesteps: Tensor, embed: Callable[[Tensor], Tensor], all_timesteps: Tensor) -> None:
        """
        :param timesteps: int64 ``[*P]``, or ``[]`` for one timestep at all positions.
        :param embed: Timesteps to embeddings ``[..., M]``.
        :param all_timesteps: int64 ``[S]``, ascending by one: what ``timesteps`` may hold.
        """
        self._rows = None
        if timesteps.dim() > 0 and timesteps.device.type == "cpu":
            timesteps, index = timesteps.unique(return_inverse=True)
            self._rows = TableRows(index, len(timesteps))
        elif timesteps.numel() > all_timesteps.numel():
            # On an accelerator, finding the distinct ones would wait for it.
            self._rows = TableRows(timesteps - all_timesteps[0], len(all_timesteps))
            timesteps = all_timesteps
        self._activated = F.silu(embed(timesteps))

    def apply(self, modulator: Linear) -> Tensor:
        """:param modulator: Linear ``M -> k M``.  :returns: What :meth:`modulation` takes slices of."""
        return modulator(self._activated)

    def modulation(self, *, scale: Tensor, shift: Tensor, gate: Tensor, norm: Adaptive) -> Modulation:
        """Brings slices of :meth:`apply`'s result, M channels each, to the positions.

        :param norm: What scale and shift are for. Its weight and bias are put into them here, a row of the table at a time
            instead of a position.
        """
        half = scale.dtype in (torch.bfloat16, torch.float16)
        scale, shift = norm.fold(at_least_float32(scale) + 1.0, shift)
        if self._rows is not None:
            scale, shift, gate = (self._rows.of(table, half=half) for table in (scale, shift, gate))
        return Modulation(scale=scale, shift=shift, gate=gate)


class TableRows:
    """Picks the rows of tables ``[S, M]`` at an index ``[*P]``, with the gradient that is fast there."""

    def __init__(self, index: Tensor, num_rows: int) -> None:
        self._index = index
        self._num_rows = num_rows
        self._one_hot: Tensor | None = None

    def of(self, table: Tensor, *, half: bool) -> Tensor:
        """:param half: The table comes from a half-precision product, which its gradient will be given to."""
        if table.device.type == "cpu":
            # Its gradient adds one row at a time, while that of `embedding` runs in one thread.
            return table.index_select(0, self._index.flatten()).unflatten(0, self._index.shape)
        if not half:
            return F.embedding(self._index, table)
        if self._one_hot is None:
            rows = torch.arange(self._num_rows, device=table.device)
            self._one_hot = (self._index.flatten() == rows.unsqueeze(-1)).to(torch.bfloat16)
        return _RowsByProduct.apply(table, self._index, self._one_hot)


class _RowsByProduct(Function):
    """Thousands of positions share a hundred rows, so that adding up their gradients one by one, or sorting them first,
    takes longer than a product with the one-hot matrix ``[S, N]``, which is exact and summed in float32."""

    @staticmethod
    def forward(ctx: FunctionCtx, table: Tensor, index: Tensor, one_hot: Tensor) -> Tensor:
        ctx.save_for_backward(one_hot)
        ctx.dtype = table.dtype
        return F.embedding(index, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (one_hot,) = ctx.saved_tensors
        return (one_hot @ grad.flatten(0, -2).to(one_hot.dtype)).to(ctx.dtype), None, None


class Adaptive:
    """Turns a norm into one whose result the timestep scales and shifts (AdaLN, Peebles and Xie 2023)."""

    weight: Tensor | None
    bias: Tensor | None

    def fold(self, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """``scale * (weight * x + bias) + shift`` as a scale and a shift of ``x`` alone."""
        if self.bias is not None:
            shift = torch.addcmul(at_least_float32(shift), scale, self.bias.to(scale.dtype))
        return scale if self.weight is None else scale * self.weight.to(scale.dtype), shift

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """:param scale: Of a :class:`Modulation`, as ``shift``.  :returns: The type in which autocast multiplies matrices."""
        return multiply_add(shift, scale, self.normed(x), dtype=matmul_dtype(x))  # type: ignore[attr-defined]


class AdaptiveRMSNorm(Adaptive, RMSNorm):
    """RMSNorm with AdaLN."""

    bias = None


class AdaptiveLayerNorm(Adaptive, PreciseLayerNorm):
    """LayerNorm with AdaLN."""
