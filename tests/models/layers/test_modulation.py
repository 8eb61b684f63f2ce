from __future__ import annotations

import pytest
import torch
from torch.nn import Linear, Module

from lexalcm.models.layers.modulation import (
    AdaptiveLayerNorm,
    AdaptiveRMSNorm,
    TimestepConditioning,
    _RowsByProduct,
)


def embed(timesteps: torch.Tensor) -> torch.Tensor:
    return torch.stack([timesteps.double(), timesteps.double().sqrt()], dim=-1)


def test_modulations_are_those_of_each_position_and_computed_once_a_timestep() -> None:
    torch.manual_seed(0)
    modulator = Linear(2, 9).double()
    rows = []
    modulator.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    timesteps = torch.tensor([[3, 7, 3, 3], [7, 9, 3, 9]])
    conditioning = TimestepConditioning(timesteps, embed, torch.arange(1, 101))
    parts = conditioning.apply(modulator).chunk(3, dim=-1)
    found = conditioning.modulation(scale=parts[0], shift=parts[1], gate=parts[2], norm=AdaptiveRMSNorm(3, affine=False))
    assert rows == [3]
    plain = modulator(torch.nn.functional.silu(embed(timesteps)))
    scale, shift, gate = plain.chunk(3, dim=-1)
    for ours, theirs in ((found.scale, scale + 1.0), (found.shift, shift), (found.gate, gate)):
        torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(plain)
    parameters = list(modulator.parameters())
    ours = torch.autograd.grad((torch.cat([found.scale, found.shift, found.gate], -1) * weight).sum(), parameters)
    theirs = torch.autograd.grad((plain * weight).sum(), parameters)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_the_gradient_of_picked_rows_is_a_product_with_the_one_hot_matrix() -> None:
    index = torch.tensor([[4, 0, 4], [1, 1, 4]])
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    one_hot = (index.flatten() == torch.arange(5).unsqueeze(-1)).double()
    weight = torch.randn(2, 3, 3, dtype=torch.float64)
    picked = _RowsByProduct.apply(table, index, one_hot)
    assert torch.equal(picked, table[index])
    ours, theirs = (torch.autograd.grad((x * weight).sum(), table)[0] for x in (picked, table[index]))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("norm", [AdaptiveRMSNorm(4), AdaptiveLayerNorm(4), AdaptiveLayerNorm(4, bias=False)])
def test_a_norms_weight_and_bias_are_put_into_the_modulation(norm: Module) -> None:
    norm = norm.double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    conditioning = TimestepConditioning(torch.tensor([3, 7, 3]), embed, torch.arange(1, 101))
    scale, shift, gate = conditioning.apply(Linear(2, 12).double()).chunk(3, dim=-1)
    folded = conditioning.modulation(scale=scale, shift=shift, gate=gate, norm=norm)
    x = torch.randn(3, 4).double()
    found = norm(x, folded.scale, folded.shift)
    rows = torch.tensor([0, 1, 0])
    affine = norm.normed(x) * norm.weight + (0.0 if norm.bias is None else norm.bias)
    expected = affine * (1.0 + scale[rows]) + shift[rows]
    torch.testing.assert_close(found, expected)
    parameters = list(norm.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(y.square().sum(), parameters, retain_graph=True) for y in (found, expected))):
        torch.testing.assert_close(ours, theirs)
