"""``base + factor * x`` over mixed types in one pass each way."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable


def multiply_add(base: Tensor, factor: Tensor, x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Computes ``base + factor * x`` in the widest of their types.

    ``torch.addcmul`` under autocast first copies what is narrower, and its gradient multiplies by a 1 in two passes more.

    :param dtype: Of the result; by default that of ``base``.
    """
    dtype = base.dtype if dtype is None else dtype
    if torch.compiler.is_compiling() or not base.shape == factor.shape == x.shape:
        return torch.addcmul(base, factor, x).to(dtype)
    return _MultiplyAdd.apply(base, factor, x, dtype)


class _MultiplyAdd(Function):
    # Operations that write into a given tensor are none of autocast's business.

    @staticmethod
    def forward(ctx: FunctionCtx, base: Tensor, factor: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(factor, x)
        ctx.base_dtype = base.dtype
        return torch.addcmul(base, factor, x, out=torch.empty_like(x, dtype=dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        factor, x = ctx.saved_tensors
        grad_factor = torch.mul(grad, x, out=torch.empty_like(factor))
        grad_x = torch.mul(grad, factor, out=torch.empty_like(x))
        return grad.to(ctx.base_dtype), grad_factor, grad_x, None
