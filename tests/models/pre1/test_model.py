"""The fast formulation against the plain one in float64, and what may depend on what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexalcm.layout import DocumentLayout
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model

LENGTHS = [5, 3, 8, 1]


def small_model(**fields: object) -> Pre1Model:
    """A model with every weight random: fresh modulators are zero and would hide mistakes."""
    torch.manual_seed(0)
    config = Pre1Config(
        concept_dim=12,
        model_dim=24,
        num_heads=3,
        ffn_dim=40,
        timestep_dim=8,
        context_dropout_p=0.0,
        bridge_dropout_p=0.0,
        denoiser_dropout_p=0.0,
        **fields,
    )
    model = create_pre1_model(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def plain_rms_norm(x: Tensor, weight: Tensor | None) -> Tensor:
    y = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return y if weight is None else y * weight


def plain_attention(module, q: Tensor, kv: Tensor, mask: Tensor, rotate=lambda x: x) -> Tensor:
    """Explicit scores and mask over all pairs of one document."""
    heads = module.num_heads
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(0, 1)  # noqa: E731
    query, key, value = split(module.q_proj(q)), split(module.k_proj(kv)), split(module.v_proj(kv))
    query, key = rotate(query), rotate(key)
    scores = query @ key.transpose(-1, -2) / query.size(-1) ** 0.5
    scores = scores.masked_fill(~mask, float("-inf"))
    return module.output_proj((scores.softmax(-1) @ value).transpose(0, 1).flatten(-2))


def plain_rope(x: Tensor) -> Tensor:
    """Each pair (2i, 2i + 1) turned by p * 10000^(-2i / E)."""
    dim = x.size(-1)
    angle = torch.arange(x.size(-2)).double()[:, None] * 10000.0 ** (-torch.arange(0, dim, 2).double() / dim)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()]
    return torch.stack(turned, dim=-1).flatten(-2)


def plain_frontend(module, x: Tensor) -> Tensor:
    return F.silu(module.proj(F.layer_norm(x, x.shape[-1:], module.norm.weight, module.norm.bias, 1e-5)))


def plain_forward(model: Pre1Model, concepts: Tensor, noisy: Tensor, timesteps: Tensor, dropped: Tensor) -> Tensor:
    """One document, section 7.1 of the specification written down: a modulator a position, full T x T attentions."""
    count = len(concepts)
    causal = torch.ones(count, count, dtype=torch.bool).tril()
    h = plain_frontend(model.context_frontend, concepts)
    for layer in model.contextualizer.layers:
        x = plain_rms_norm(h, layer.self_attn_layer_norm.weight)
        h = h + plain_attention(layer.self_attn, x, x, causal, plain_rope)
        x = plain_rms_norm(h, layer.ffn_layer_norm.weight)
        h = h + layer.ffn.output_proj(F.silu(layer.ffn.gate_proj(x)) * layer.ffn.inner_proj(x))
    h = plain_rms_norm(h, model.contextualizer.layer_norm.weight)
    z = plain_rms_norm(model.context_down_proj(h), model.latent_bridge.norm.weight)
    context = h + plain_frontend(model.denoiser_frontend, F.gelu(model.latent_bridge.proj(z)))
    keys = torch.cat([torch.zeros(1, context.size(1)).double(), context])
    may_see = torch.ones(count, count + 1, dtype=torch.bool).tril()
    may_see[dropped] = torch.arange(count + 1) == 0
    half = model.config.timestep_dim // 2
    angle = timesteps.double()[:, None] * 10000.0 ** (-torch.arange(half).double() / half)
    features = torch.cat([angle.sin(), angle.cos()], -1)
    e = model.timestep_encoder.fc2(F.silu(model.timestep_encoder.fc1(features)))
    u = plain_frontend(model.denoiser_frontend, noisy)
    for layer in model.denoiser.layers:
        for kind in ("self_attn", "cross_attn", "ffn"):
            modulator, norm = getattr(layer, f"{kind}_modulator"), getattr(layer, f"{kind}_layer_norm")
            scale, shift, gate = modulator(F.silu(e)).chunk(3, -1)
            x = (1 + scale) * plain_rms_norm(u, norm.weight) + shift
            if kind == "self_attn":
                f = plain_attention(layer.self_attn, x, x, torch.eye(count, dtype=torch.bool))
            elif kind == "cross_attn":
                f = plain_attention(layer.cross_attn, x, keys, may_see)
            else:
                f = layer.ffn.output_proj(F.silu(layer.ffn.gate_proj(x)) * layer.ffn.inner_proj(x))
            u = u + gate * f
    out = model.output_proj(plain_rms_norm(u, model.denoiser.layer_norm.weight))
    if model.linear_context is not None:
        previous = [F.pad(concepts, (0, 0, k, 0))[:count] for k in range(1, model.linear_context.num_previous + 1)]
        means = torch.stack([concepts[:i].mean(0) if i else torch.zeros_like(concepts[0]) for i in range(count)])
        linear = model.linear_context.proj(torch.cat([*previous, means], -1)).masked_fill(dropped[:, None], 0.0)
        out = out + (1 - model.schedule.alpha_cumprod(timesteps)).double()[:, None] * linear
    return out


def random_batch(num: int, dim: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.randn(num, dim).double(),
        torch.randn(num, dim).double(),
        torch.randint(1, 101, (num,)),
        torch.rand(num) < 0.3,
    )


@pytest.mark.parametrize("fields", [{}, {"denoiser_norm_weights": True}, {"linear_context": 3}])
def test_fast_formulation_equals_the_plain_one_in_outputs_and_gradients(fields: dict) -> None:
    model = small_model(**fields)
    # More positions than timesteps, so that modulations are gathered from a table.
    lengths = LENGTHS + [40, 60]
    concepts, noisy, timesteps, dropped = random_batch(sum(lengths))
    fast = model(concepts, noisy, timesteps, DocumentLayout(lengths), dropped)
    fast.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    plain = torch.cat(
        [
            plain_forward(model, *parts)
            for parts in zip(*(x.split(lengths) for x in (concepts, noisy, timesteps, dropped)))
        ]
    )
    plain.square().sum().backward()
    torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)
    largest = max(g.abs().max() for g in gradients.values())
    for name, parameter in model.named_parameters():
        if name not in model.inert_parameters():
            assert (gradients[name] - parameter.grad).abs().max() < 1e-10 * largest, name


def test_every_parameter_that_can_matter_gets_a_gradient_and_no_other() -> None:
    model = small_model(linear_context=2)
    concepts, noisy, timesteps, _ = random_batch(sum(LENGTHS))
    model(concepts, noisy, timesteps, DocumentLayout(LENGTHS)).sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == model.inert_parameters()


def test_the_contextualizer_never_reads_what_no_position_sees() -> None:
    model = small_model()
    concepts, noisy, timesteps, _ = random_batch(sum(LENGTHS))
    read: list[int] = []
    model.contextualizer.layers[0].register_forward_pre_hook(lambda module, inputs: read.append(len(inputs[0])))
    whole = model(concepts, noisy, timesteps, DocumentLayout(LENGTHS))
    assert read == [sum(LENGTHS) - len(LENGTHS)]
    ends = torch.tensor(LENGTHS).cumsum(0) - 1
    changed = concepts.clone()
    changed[ends] = torch.nan
    assert torch.equal(model(changed, noisy, timesteps, DocumentLayout(LENGTHS)), whole)


@pytest.mark.parametrize("changed", [0, 4, 10, 15])
def test_a_concept_changes_predictions_of_later_positions_of_its_document_only(changed: int) -> None:
    model = small_model(linear_context=3)
    layout = DocumentLayout(LENGTHS)
    concepts, noisy, timesteps, _ = random_batch(sum(LENGTHS))
    before = model(concepts, noisy, timesteps, layout)
    concepts[changed] += 1.0
    moved = (model(concepts, noisy, timesteps, layout) - before).abs().amax(-1) > 0
    end = next(e for e in (5, 8, 16, 17) if changed < e)
    assert moved.nonzero().flatten().tolist() == list(range(changed + 1, end))


def test_padded_and_packed_batches_agree() -> None:
    model = small_model(linear_context=2)
    padded = DocumentLayout(LENGTHS, packed=False)
    concepts, noisy = torch.randn(2, 4, 8, 12).double()
    timesteps = torch.randint(1, 101, (4, 8))
    real = padded.real
    out = model(concepts, noisy, timesteps, padded)[real]
    torch.testing.assert_close(out, model(concepts[real], noisy[real], timesteps[real], DocumentLayout(LENGTHS)))


def test_several_noise_draws_equal_as_many_calls() -> None:
    model = small_model(linear_context=2)
    layout = DocumentLayout(LENGTHS)
    concepts = torch.randn(17, 12).double()
    noisy, timesteps = torch.randn(3, 17, 12).double(), torch.randint(1, 101, (3, 17))
    together = model(concepts, noisy, timesteps, layout)
    torch.testing.assert_close(together, torch.stack([model(concepts, n, t, layout) for n, t in zip(noisy, timesteps)]))


def test_one_step_with_a_cache_equals_the_full_call() -> None:
    model = small_model(linear_context=2).eval()
    layout = DocumentLayout(LENGTHS)
    concepts, noisy, _, dropped = random_batch(17)
    context = model.encode(concepts, layout)
    cache = model.denoise_cache(context, layout)
    full = model.denoise(noisy, torch.full((17,), 40), context, layout, dropped=dropped)
    torch.testing.assert_close(model.denoise_step(noisy, 40, cache, dropped=dropped), full)
    alone = model.denoise(noisy, torch.full((17,), 40), context, layout, dropped=torch.ones(17, dtype=torch.bool))
    torch.testing.assert_close(model.denoise_step(noisy, 40, cache, dropped=True), alone)


def test_incremental_encoding_predicts_the_next_position_as_the_whole_document_does() -> None:
    model = small_model(linear_context=3).eval()
    concepts, noisy = torch.randn(2, 2, 8, 12).double()
    whole = DocumentLayout([8, 8], packed=False)
    expected = model.denoise(noisy, torch.full((2, 8), 40), model.encode(concepts, whole), whole)
    state = model.new_state()
    for start, stop in ((0, 3), (3, 4), (4, 7)):
        layout = DocumentLayout([stop - start] * 2, packed=False)
        cache = model.denoise_cache(model.encode(concepts[:, start:stop], layout, state), layout, next_only=True)
        torch.testing.assert_close(
            model.denoise_step(noisy[:, stop : stop + 1], 40, cache), expected[:, stop : stop + 1]
        )


@pytest.mark.parametrize("linear_context", [0, 3])
def test_both_predictions_in_one_pass_equal_two_passes(linear_context: int) -> None:
    model = small_model(linear_context=linear_context).eval()
    concepts, noisy = torch.randn(2, 3, 6, 12).double()
    layout = DocumentLayout([6] * 3, packed=False)
    cache = model.denoise_cache(model.encode(concepts, layout), layout, next_only=True)
    together = model.denoise_both(noisy[:, :1], 40, cache)
    for found, dropped in zip(together, (False, True)):
        torch.testing.assert_close(found, model.denoise_step(noisy[:, :1], 40, cache, dropped=dropped))
    some = torch.tensor([[True], [False], [True]])
    mixed = model.denoise_step(noisy[:, :1], 40, cache, dropped=some)
    torch.testing.assert_close(mixed, torch.where(some.unsqueeze(-1), together[1], together[0]))


def test_a_fresh_denoiser_ignores_context_and_timestep() -> None:
    config = Pre1Config(concept_dim=12, model_dim=24, num_heads=3, ffn_dim=40, timestep_dim=8, linear_context=2)
    model = create_pre1_model(config).eval()
    layout = DocumentLayout([4])
    noisy = torch.randn(4, 12)
    a = model(torch.randn(4, 12), noisy, torch.tensor([1, 2, 3, 4]), layout)
    b = model(torch.randn(4, 12), noisy, torch.tensor([9, 9, 9, 9]), layout)
    assert torch.equal(a, b)


def test_which_parts_run_in_float32_under_autocast() -> None:
    model = small_model(linear_context=2).float()
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, a, out, name=name: seen.__setitem__(name, out.dtype))
    concepts, noisy, timesteps, _ = random_batch(17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(concepts.float(), noisy.float(), timesteps, DocumentLayout(LENGTHS))
    assert out.dtype == torch.float32
    assert seen["context_frontend.norm"] == seen["denoiser_frontend.norm"] == torch.float32
    assert seen["contextualizer.layers.0.self_attn.q_proj"] == torch.bfloat16
    assert seen["denoiser.layers.3.ffn.gate_proj"] == torch.bfloat16
    assert seen["context_down_proj"] == torch.bfloat16
    # Called as functions in float32, these never run through their modules.
    assert not {"timestep_encoder.fc1", "timestep_encoder.fc2", "output_proj", "linear_context.proj"} & seen.keys()
    assert seen["denoiser.layer_norm"] == torch.float32
