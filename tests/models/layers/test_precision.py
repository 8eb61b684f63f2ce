from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lexalcm.models.layers.precision import RMSNorm


@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm_and_its_gradients_are_torchs(affine: bool) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(12, eps=0.1, affine=affine).double()
    if norm.weight is not None:
        torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(x)
    inputs = [x] if norm.weight is None else [x, norm.weight]
    ours, torchs = norm(x), F.rms_norm(x, (12,), norm.weight, 0.1)
    torch.testing.assert_close(ours, torchs)
    for a, b in zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(torchs, inputs, grad)):
        torch.testing.assert_close(a, b)


def test_rms_norm_keeps_half_precision_outside_and_float32_inside() -> None:
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square is beyond float16
    out = RMSNorm(4)(x)
    assert out.dtype == torch.float16
    assert out.tolist() == [[1.0] * 4]
