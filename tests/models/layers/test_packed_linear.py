"""Linear layers for few rows: what torch's own give, on weights of their own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn import Linear
from torch.nn.utils.parametrizations import weight_norm

from lexalcm.models.layers import packed_linear
from lexalcm.models.layers.feed_forward import SwiGLU
from lexalcm.models.layers.packed_linear import FixedLinear, PackedLinear, fixed_linear, with_packed_linears
from lexalcm.models.layers.precision import precise_linear


@pytest.mark.parametrize("rows", [(1,), (2, 1), (2, 3, 5), (70,)])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_packed_layers_equal_plain_ones_for_any_number_of_rows(rows: tuple[int, ...], bias: bool) -> None:
    layer = Linear(48, 20, bias=bias)
    x = torch.randn(*rows, 48)
    packed = fixed_linear(layer.weight, layer.bias)
    torch.testing.assert_close(packed(x), layer(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(precise_linear(x, packed), layer(x), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_module_is_copied_with_packed_layers_and_stays_as_it_is() -> None:
    module = SwiGLU(16, 24)
    twin = with_packed_linears(module)
    x = torch.randn(2, 3, 1, 16)
    torch.testing.assert_close(twin(x), module(x), rtol=1e-5, atol=1e-5)
    assert type(module.gate_proj) is Linear
    assert packed_linear._packing_works() == isinstance(twin.gate_proj, PackedLinear)


@torch.inference_mode()
def test_weight_normalisation_is_computed_once() -> None:
    layer = weight_norm(Linear(6, 4))
    layer.parametrizations.weight.original0.mul_(2.0)
    x = torch.randn(2, 6)
    torch.testing.assert_close(with_packed_linears(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.inference_mode()
def test_other_types_are_left_alone(dtype: torch.dtype) -> None:
    layer = Linear(6, 4).to(dtype)
    assert with_packed_linears(layer) is layer
    fixed = fixed_linear(layer.weight, layer.bias)
    x = torch.randn(2, 6).to(dtype)
    assert isinstance(fixed, FixedLinear) and torch.equal(fixed(x), F.linear(x, layer.weight, layer.bias))


def test_nothing_is_copied_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Linear(64, 64)
    monkeypatch.setattr(packed_linear, "available_memory", lambda device: layer.weight.nbytes)
    assert with_packed_linears(layer) is layer


def test_a_torch_without_the_operations_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> None:
        raise AttributeError

    monkeypatch.setattr(packed_linear, "PackedLinear", missing)
    assert not packed_linear._packing_works.__wrapped__()
