"""Which parts of a model stay in float32 under bfloat16 autocast, and how."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import LayerNorm, Linear, Module, Parameter

from lexalcm.models.layers.packed_linear import PackedLinear


def at_least_float32(x: Tensor) -> Tensor:
    """Casts half precision up; float32 and float64 pass unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The type in which a matrix product with ``x`` runs: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on ``x``'s device run in the dtypes they are given."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def precise_linear(x: Tensor, layer: Linear | PackedLinear) -> Tensor:
    """Applies ``layer`` in float32 (or float64), whatever autocast and the weights' own dtype say."""
    x = at_least_float32(x)
    if isinstance(layer, PackedLinear):
        return layer(x)
    with no_autocast(x):
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return F.linear(x, layer.weight.to(x.dtype), bias)


class PreciseLayerNorm(LayerNorm):
    """LayerNorm whose statistics and result are float32 at least."""

    def forward(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        weight, bias = (None if p is None else p.to(x.dtype) for p in (self.weight, self.bias))
        with no_autocast(x):
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)

    def normed(self, x: Tensor) -> Tensor:
        """The same without weight and bias."""
        x = at_least_float32(x)
        with no_autocast(x):
            return F.layer_norm(x, self.normalized_shape, eps=self.eps)


class RMSNorm(Module):
    """``w * x * rsqrt(mean(x^2) + eps)`` with float32 statistics, returned in the dtype of ``x``.

    fairseq2's own calls ``.float()``, which rules float64 references out.
    """

    def __init__(self, dim: int, *, eps: float = 1e-6, affine: bool = True) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = Parameter(torch.ones(dim)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x, self.weight)

    def normed(self, x: Tensor) -> Tensor:
        """The same without weight."""
        return self._forward(x, None)

    def _forward(self, x: Tensor, weight: Tensor | None) -> Tensor:
        precise = at_least_float32(x)
        with no_autocast(x):
            weight = None if weight is None else weight.to(precise.dtype)
            if x.device.type == "cpu":
                # torch has one kernel for this on accelerators, and about 20 passes forward and back on CPU.
                needs_grad = torch.is_grad_enabled() and precise.requires_grad
                normed = _RMSNormOnCpu.apply(precise, self.eps) if needs_grad else _rms_norm(precise, self.eps)[0]
                return (normed if weight is None else normed * weight).to(x.dtype)
            return F.rms_norm(precise, (self.dim,), weight, self.eps).to(x.dtype)


def _rms_norm(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``x r`` and ``r``."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = torch.addcmul(norm.new_full((), eps), norm, norm, value=1.0 / x.size(-1)).rsqrt_()
    return x * inverse, inverse


class _RMSNormOnCpu(Function):
    """``y = r x`` with ``r = rsqrt(mean(x^2) + eps)``, and ``r (g - y mean(g y))`` for its gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, eps: float) -> Tensor:
        y, inverse = _rms_norm(x, eps)
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        y, inverse = ctx.saved_tensors
        along = (grad * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1.0).mul_(inverse), None
