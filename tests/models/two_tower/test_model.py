"""The fast formulation against the plain one in float64, for every option, and what may depend on what."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3]))

from variants import VARIANTS, config_of, model_of

from benchmarks.plain_two_tower import plain_forward
from lexalcm.errors import ConfigError
from lexalcm.layout import DocumentLayout
from lexalcm.models.two_tower.factory import create_two_tower_model

LENGTHS = [5, 3, 8, 1, 40, 60]
ROTARY = "post-norm with a scaled residual, rotary positions in both"


def random_batch(num: int, dim: int = 10) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.randn(num, dim).double(),
        torch.randn(num, dim).double(),
        torch.randint(0, 50, (num,)),
        torch.rand(num) < 0.3,
    )


def padded_rows(x: Tensor, real: Tensor) -> Tensor:
    rows = x.new_zeros(*real.shape, *x.shape[1:])
    rows[real] = x
    return rows


@pytest.mark.parametrize("variant", VARIANTS)
def test_fast_formulation_equals_the_plain_one_in_outputs_and_gradients(variant: str) -> None:
    model = model_of(variant)
    concepts, noisy, timesteps, dropped = random_batch(sum(LENGTHS))
    fast = model.predict(
        noisy, timesteps, model.encode(concepts, DocumentLayout(LENGTHS)), DocumentLayout(LENGTHS), dropped=dropped
    )
    fast.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    real = DocumentLayout(LENGTHS, packed=False).real
    rows = [padded_rows(x, real) for x in (concepts, noisy, timesteps, dropped)]
    plain = plain_forward(model, *rows[:3], LENGTHS, rows[3])[real]
    plain.square().sum().backward()
    torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-9)
    largest = max(g.abs().max() for g in gradients.values())
    for name, parameter in model.named_parameters():
        if name not in model.inert_parameters():
            assert (gradients[name] - parameter.grad).abs().max() < 1e-9 * largest, name
        else:
            assert name not in gradients and (parameter.grad is None or parameter.grad.abs().max() < 1e-9 * largest)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_and_packed_batches_agree(variant: str) -> None:
    model = model_of(variant)
    padded = DocumentLayout(LENGTHS, packed=False)
    concepts, noisy = torch.randn(2, *padded.real.shape, 10).double()
    timesteps = torch.randint(0, 50, padded.real.shape)
    real = padded.real
    out = model(concepts, noisy, timesteps, padded)[real]
    torch.testing.assert_close(out, model(concepts[real], noisy[real], timesteps[real], DocumentLayout(LENGTHS)))


@pytest.mark.parametrize("query_positions", ["document", "meta_compatible"])
def test_targets_behind_a_source_are_predicted_as_in_the_whole_document(query_positions: str) -> None:
    model = model_of(ROTARY, query_positions=query_positions)
    sources = [2, 0, 5, 1, 39, 60]
    layout = DocumentLayout(LENGTHS, source_lengths=sources)
    concepts, noisy, timesteps, dropped = random_batch(sum(LENGTHS))
    at = layout.queries
    found = model(concepts, noisy[at], timesteps[at], layout, dropped[at])
    assert len(found) == sum(LENGTHS) - sum(sources)
    whole = model(concepts, noisy, timesteps, DocumentLayout(LENGTHS), dropped)[at]
    # Rotary queries that are counted from the first target stand nearer to their keys than in the document.
    same = torch.allclose(found, whole, rtol=1e-9, atol=1e-9)
    assert same == (query_positions == "document")


def test_several_noise_draws_equal_as_many_calls_with_sources_too() -> None:
    for sources in (None, [1, 0, 2]):
        model = model_of(ROTARY)
        layout = DocumentLayout([5, 3, 8], source_lengths=sources)
        concepts, count = torch.randn(16, 10).double(), layout.num_queries
        noisy, timesteps = torch.randn(3, count, 10).double(), torch.randint(0, 50, (3, count))
        together = model(concepts, noisy, timesteps, layout)
        each = torch.stack([model(concepts, n, t, layout) for n, t in zip(noisy, timesteps)])
        torch.testing.assert_close(together, each)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_step_with_a_cache_equals_the_full_call(variant: str) -> None:
    model = model_of(variant).eval()
    layout = DocumentLayout(LENGTHS)
    concepts, noisy, _, dropped = random_batch(sum(LENGTHS))
    context = model.encode(concepts, layout)
    cache = model.denoise_cache(context, layout)
    at_40 = torch.full((sum(LENGTHS),), 40)
    full = model.denoise(noisy, at_40, context, layout, dropped=dropped)
    torch.testing.assert_close(model.denoise_step(noisy, 40, cache, dropped=dropped), full)
    alone = model.denoise(noisy, at_40, context, layout, dropped=torch.ones_like(dropped))
    torch.testing.assert_close(model.denoise_step(noisy, 40, cache, dropped=True), alone)
    # The zero vector's value is the bias: without context, the prediction is still one.
    assert (model.denoise_step(noisy, 40, cache, dropped=True) - full).abs().max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_incremental_encoding_predicts_the_next_position_as_the_whole_document_does(variant: str) -> None:
    model = model_of(variant).eval()
    concepts, noisy = torch.randn(2, 2, 8, 10).double()
    whole = DocumentLayout([8, 8], packed=False)
    expected = model.denoise(noisy, torch.full((2, 8), 40), model.encode(concepts, whole), whole)
    state = model.new_state()
    for start, stop in ((0, 3), (3, 4), (4, 7)):
        layout = DocumentLayout([stop - start] * 2, packed=False)
        cache = model.denoise_cache(model.encode(concepts[:, start:stop], layout, state), layout, next_only=True)
        found = model.denoise_step(noisy[:, stop : stop + 1], 40, cache)
        torch.testing.assert_close(found, expected[:, stop : stop + 1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_predictions_in_one_pass_equal_two_passes(variant: str) -> None:
    model = model_of(variant).eval()
    concepts, noisy = torch.randn(2, 3, 6, 10).double()
    layout = DocumentLayout([6] * 3, packed=False)
    cache = model.denoise_cache(model.encode(concepts, layout), layout, next_only=True)
    together = model.denoise_both(noisy[:, :1], 40, cache)
    for found, dropped in zip(together, (False, True)):
        torch.testing.assert_close(found, model.denoise_step(noisy[:, :1], 40, cache, dropped=dropped))
    some = torch.tensor([[True], [False], [True]])
    mixed = model.denoise_step(noisy[:, :1], 40, cache, dropped=some)
    torch.testing.assert_close(mixed, torch.where(some.unsqueeze(-1), together[1], together[0]))


def test_a_fresh_denoiser_ignores_context_and_timestep() -> None:
    model = create_two_tower_model(config_of("like the 1.6B")).eval()
    layout = DocumentLayout([4])
    noisy = torch.randn(4, 10)
    a = model.predict(noisy, torch.tensor([1, 2, 3, 4]), model.encode(torch.randn(4, 10), layout), layout)
    b = model.predict(noisy, torch.tensor([9, 9, 9, 9]), model.encode(torch.randn(4, 10), layout), layout)
    assert torch.equal(a, b)


def test_a_document_longer_than_the_position_table_is_refused() -> None:
    model = model_of("defaults")
    layout = DocumentLayout([3, 201])
    with pytest.raises(ConfigError, match=r"201 concepts is longer than the model's `max_seq_len` of 200"):
        model.encode(torch.randn(204, 10).double(), layout)
    state = model.new_state()
    model.encode(torch.randn(1, 199, 10).double(), DocumentLayout([199], packed=False), state)
    with pytest.raises(ConfigError, match="max_seq_len"):
        model.encode(torch.randn(1, 2, 10).double(), DocumentLayout([2], packed=False), state)


def test_dropout_is_applied_in_training_alone_to_lone_weights_too() -> None:
    config = config_of("like the 1.6B")
    config.denoiser.attention_dropout_p = 0.5
    torch.manual_seed(0)
    model = create_two_tower_model(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layout = DocumentLayout([3])
    concepts, noisy, timesteps = torch.randn(3, 10), torch.randn(3, 10), torch.tensor([1, 2, 3])
    everywhere = torch.ones(3, dtype=torch.bool)
    drawn = [model(concepts, noisy, timesteps, layout, everywhere) for _ in range(2)]
    assert not torch.equal(*drawn)
    model.eval()
    assert torch.equal(*(model(concepts, noisy, timesteps, layout, everywhere) for _ in range(2)))


def test_which_parts_run_in_float32_under_autocast() -> None:
    model = model_of("like the 1.6B").float()
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda m, a, out, name=name: seen.__setitem__(name, out.dtype) if isinstance(out, Tensor) else None
        )
    concepts, noisy, timesteps, _ = random_batch(17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(concepts.float(), noisy.float(), timesteps, DocumentLayout([5, 12]))
    assert out.dtype == torch.float32
    assert seen["context_encoder.layers.0.self_attn.q_proj"] == torch.bfloat16
    assert seen["denoiser.layers.1.ffn.gate_proj"] == torch.bfloat16
    assert seen["denoiser.layers.1.ffn_layer_norm"] == torch.bfloat16
    for name in ("initial_proj", "final_proj", "embed_time", "layer_norm"):
        assert seen[f"denoiser.{name}"] == torch.float32
