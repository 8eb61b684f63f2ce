from __future__ import annotations

import pytest
import torch

from lexalcm.models.layers.multiply_add import multiply_add


def inputs(*dtypes: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 3, generator=generator).to(dtype).requires_grad_() for dtype in dtypes]


def test_it_is_addcmul_with_the_same_gradients() -> None:
    base, factor, x = inputs(*[torch.float64] * 3)
    assert torch.equal(multiply_add(base, factor, x), torch.addcmul(base, factor, x))
    assert torch.autograd.gradcheck(multiply_add, (base, factor, x))


@pytest.mark.parametrize("autocast", [True, False])
def test_mixed_types_are_multiplied_in_the_widest_and_rounded_once(autocast: bool) -> None:
    base, factor, x = inputs(torch.bfloat16, torch.float32, torch.float32)
    exact = base.double() + factor.double() * x.double()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = multiply_add(base, factor, x)
        wide = multiply_add(base, factor, x, dtype=torch.float32)
    assert found.dtype == torch.bfloat16 and wide.dtype == torch.float32
    torch.testing.assert_close(wide.double(), exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(found, wide.bfloat16())
    grads = torch.autograd.grad(wide.sum(), (base, factor, x))
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32, torch.float32]
    assert torch.equal(grads[1], x) and torch.equal(grads[2], factor)


def test_a_factor_of_one_row_is_spread_over_all() -> None:
    base, factor, x = inputs(*[torch.float32] * 3)
    assert torch.equal(multiply_add(base, factor[0], x), torch.addcmul(base, factor[0], x))
