"""What the published code computes, against sections 2 and 3 of its specification written down plainly in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import CheckpointError, ConfigError, DataError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.interop import to_published
from lexalcm.models.pre1.original import OriginalPre1, create_original
from lexalcm.models.pre1.original_config import REVISIONS, original_config, revision_of

PUBLISHED = {
    "model_type": "lexa_lcm_pre1",
    "architectures": ["LexaLCM"],
    "input_dim": 10,
    "d_model": 12,
    "d_latent": 6,
    "num_context_layers": 2,
    "num_denoiser_layers": 3,
    "n_heads": 2,
    "d_ff": 14,
    "denoiser_iterations_pretrain": 8,
    "denoiser_iterations_inference": 4,
    "AdaLN_Timestep_Embed_Dim": 4,
    "cfg_scale": 0.0,
    "dropout_context": 0.1,
    "dropout_latent": 0.1,
    "dropout_denoiser": 0.15,
}
EARLY = ("first_trainable", "documented")
WITHOUT_GRADIENT = {"PreNet_C_Up", "ContextualizerTower", "PostNet_C_Down", "LatentBridge", "PreNet_D_Up"}


def small_state_dict(revision: str, **fields: object) -> dict[str, Tensor]:
    """Random float64 weights, large enough to reach the clamps, and small where the stream doubles without one: scores
    beyond 1e9 would see through the published mask."""
    torch.manual_seed(0)
    model = OriginalPre1(original_config({**PUBLISHED, **fields}), revision).double()
    for name, parameter in model.named_parameters():
        std = 1.5 if "Timestep" in name else 0.4
        if "modulator" in name:
            clamped = "mlp" in name and revision != "first_trainable"
            std = 1.5 if clamped or revision not in EARLY else 0.05
        torch.nn.init.normal_(parameter, std=std)
    return model.state_dict()


def small_model(revision: str, **fields: object) -> OriginalPre1:
    return create_original(small_state_dict(revision, **fields), {**PUBLISHED, **fields}, revision=revision)


def small_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, mask and noise of two documents, the second one padded."""
    torch.manual_seed(1)
    mask = torch.tensor([[1.0] * 5, [1.0, 1.0, 1.0, 0.0, 0.0]])
    return torch.randn(2, 5, 10).double(), mask, torch.randn(2, 5, 12).double()


def labels_for(revision: str) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 5, 10).double() if revision == "final" else torch.randn(2, 10).double()


def plain_norm(w: Tensor, x: Tensor) -> Tensor:
    return w * (x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-8))


def plain_linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def plain_pre_net(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return F.silu(plain_linear(w, f"{name}.proj", normed * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]))


def plain_swiglu(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    joined = plain_linear(w, f"{name}.linear1", x)
    inner = joined.size(-1) // 2
    return plain_linear(w, f"{name}.linear2", F.silu(joined[..., :inner]) * joined[..., inner:])


def plain_rope(x: Tensor) -> Tensor:
    """One document ``[T, M]``, channel by channel."""
    out, half = torch.empty_like(x), x.size(1) // 2
    for p in range(x.size(0)):
        for j in range(x.size(1)):
            angle = p * 10000.0 ** (-(j % half) / half)
            other = -x[p, j + 1] if j % 2 == 0 else x[p, j - 1]
            out[p, j] = x[p, j] * math.cos(angle) + other * math.sin(angle)
    return out


def plain_attention(w: dict[str, Tensor], name: str, qk: tuple[Tensor, Tensor], v: Tensor, real: list[bool]) -> Tensor:
    """One document, head by head and query by query; ``real`` tells which keys are there."""
    q, k, v = (x @ w[f"{name}.attn.core.{p}.weight"].T for x, p in zip((*qk, v), ("w_q", "w_k", "w_v")))
    size = q.size(1) // PUBLISHED["n_heads"]
    rows = []
    for i in range(len(q)):
        heads = []
        for at in (slice(h * size, (h + 1) * size) for h in range(PUBLISHED["n_heads"])):
            scores = [q[i, at] @ k[j, at] / math.sqrt(size) if j <= i and r else -1e9 for j, r in enumerate(real)]
            heads.append(torch.tensor(scores, dtype=torch.float64).softmax(0) @ v[:, at])
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ w[f"{name}.attn.core.w_o.weight"].T


def plain_forward(
    w: dict[str, Tensor], revision: str, x: Tensor, mask: Tensor, noise: Tensor, t: int, keep: list[Tensor]
) -> Tensor:
    """One document ``[T, C]``."""
    real, late = [bool(m) for m in mask], revision not in EARLY
    h = plain_pre_net(w, "PreNet_C_Up", x)
    scale = 1.0 if revision == "first_trainable" else 1 / math.sqrt(2)
    for i in range(2):
        layer = f"ContextualizerTower.layers.{i}"
        y = plain_norm(w[f"{layer}.residual_connections.0.norm.weight"], h)
        h = h + scale * plain_attention(w, f"{layer}.self_attention", (plain_rope(y), plain_rope(y)), y, real)
        y = plain_norm(w[f"{layer}.residual_connections.1.norm.weight"], h)
        h = h + scale * plain_swiglu(w, f"{layer}.mlp", y)
    h = plain_linear(w, "PostNet_C_Down.proj", plain_norm(w["ContextualizerTower.norm.weight"], h))
    h = plain_linear(w, "LatentBridge.proj.1", plain_norm(w["LatentBridge.proj.0.weight"], h))
    context = plain_pre_net(w, "PreNet_D_Up", h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))
    # The table of 8 steps is float32 in published checkpoints.
    a = torch.tensor(math.cos((t / 8 + 0.008) / 1.008 * math.pi / 2) ** 2).float().double()
    u = a.sqrt() * context + (1 - a).sqrt() * noise
    angles = [t * 10000.0 ** (-k / 2) for k in range(2)]
    features = torch.tensor([f(angle) for f in (math.sin, math.cos) for angle in angles], dtype=torch.float64)
    e = plain_linear(w, "TimestepEmbedder.lin2", F.silu(plain_linear(w, "TimestepEmbedder.lin1", features)))
    e = e.clamp(-10, 10) if revision == "final" else e
    for i in range(3):
        layer = f"DenoiserTower.layers.{i}"
        kept = keep[i].bool().tolist()
        memory = torch.cat([torch.zeros(1, 12).double(), context]) * keep[i][:, None]
        present = [k and r for k, r in zip(kept, [True, *real])]
        for n, name in enumerate(("self_attention", "cross_attention", "mlp")):
            y = plain_norm(w[f"{layer}.residual_connections.{n}.norm.weight"], u) if late else u
            gamma, beta, alpha = plain_linear(w, f"{layer}.{name}.modulator.ff.1", F.silu(e)).chunk(3)
            if revision == "final" or (name == "mlp" and revision != "first_trainable"):
                gamma, beta, alpha = gamma.clamp(-3, 3), beta.clamp(-5, 5), alpha.clamp(-3, 3)
            modulated = (1 + gamma) * y + beta
            if name == "self_attention":
                f = plain_attention(w, f"{layer}.{name}", (modulated, modulated), modulated, real)
            elif name == "cross_attention":
                f = plain_attention(w, f"{layer}.{name}", (modulated, memory), memory, present)
            else:
                f = plain_swiglu(w, f"{layer}.{name}", modulated)
                f = f if revision == "first_trainable" else 5 * torch.tanh(f)
            u = u + (1 / math.sqrt(3) if late else 1.0) * (y + alpha * f)
    return plain_linear(w, "PostNet_D_Down.proj", plain_norm(w["DenoiserTower.final_norm.weight"], u))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("revision", REVISIONS)
def test_each_revision_computes_what_the_specification_says(revision: str, training: bool) -> None:
    model, w = small_model(revision).train(training), small_state_dict(revision)
    embeddings, mask, noise = small_batch()
    keep = (torch.rand(3, 2, 6) < 0.7).double()
    keep[:, :, 0] = 1.0
    found = model(embeddings, mask, noise=noise, row_keep=list(keep)).predicted
    documents = zip(embeddings, mask, noise, keep.unbind(1))
    expected = torch.stack(
        [plain_forward(w, revision, x, m, n, 7 if training else 3, list(k)) for x, m, n, k in documents]
    )
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("revision", "clamped"),
    [
        ("first_trainable", []),
        ("documented", ["mlp"]),
        ("first_residual", ["mlp"]),
        ("final", ["self_attention", "cross_attention", "mlp"]),
    ],
)
def test_modulation_is_clamped_where_the_specification_says(revision: str, clamped: list[str]) -> None:
    layer = small_model(revision).DenoiserTower.layers[0]
    x, embedding = torch.randn(2, 5, 12).double(), torch.zeros(2, 12).double()
    for name in ("self_attention", "cross_attention", "mlp"):
        modulator = layer.get_submodule(name).modulator
        torch.nn.init.constant_(modulator.ff[1].bias, 20.0)
        scale, shift, gate = (3.0, 5.0, 3.0) if name in clamped else (20.0, 20.0, 20.0)
        torch.testing.assert_close(modulator(x, embedding, lambda h: h), x + gate * ((1 + scale) * x + shift))


def test_losses_are_means_of_distances_over_what_each_revision_pairs() -> None:
    predicted, mask = torch.randn(2, 5, 10).double(), torch.tensor([[1.0] * 5, [1.0, 1.0, 1.0, 0.0, 0.0]])
    each = [(b, t) for b in range(2) for t in range(5)]
    labels = labels_for("documented")
    own = [math.dist(predicted[b, t], labels[b]) for b, t in each]
    pairs = [math.dist(predicted[b, t], label) for b, t in each for label in labels]
    nexts = labels_for("final")
    real = [math.dist(predicted[b, t], nexts[b, t]) for b, t in each if mask[b, t]]
    found = {name: small_model(name).loss for name in REVISIONS}
    assert found["first_trainable"](predicted, labels, mask.bool()).item() == pytest.approx(sum(own) / 10, rel=1e-12)
    for name in ("documented", "first_residual"):
        assert found[name](predicted, labels, mask.bool()).item() == pytest.approx(sum(pairs) / 20, rel=1e-12)
    assert found["final"](predicted, nexts, mask.bool()).item() == pytest.approx(sum(real) / 8, rel=1e-12)


def test_the_final_loss_of_padding_alone_is_zero_with_finite_gradients() -> None:
    model = small_model("final")
    embeddings, mask, noise = small_batch()
    loss = model(embeddings, torch.zeros_like(mask), labels_for("final"), noise=noise).loss
    loss.backward()
    assert loss == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_final_loss_cuts_to_the_shortest_and_takes_single_positions() -> None:
    loss = small_model("final").loss
    predicted, labels, real = torch.randn(2, 5, 10), torch.randn(2, 5, 10), torch.ones(2, 5, dtype=torch.bool)
    expected = loss(predicted[:, :3], labels[:, :3], real[:, :3])
    assert loss(predicted, labels[:, :3], real) == loss(predicted, labels, real[:, :3]) == expected
    assert loss(predicted[:, 0], labels[:, 0], real) == loss(predicted[:, :1], labels[:, :1], real[:, :1])


@pytest.mark.parametrize(("revision", "other"), [("final", "documented"), ("documented", "final")])
def test_labels_of_another_revision_are_refused(revision: str, other: str) -> None:
    embeddings, mask, noise = small_batch()
    with pytest.raises(DataError, match=r"`labels` must have the shape \[2, .*10\] for this revision, but have \[2, "):
        small_model(revision)(embeddings, mask, labels_for(other), noise=noise)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("revision", REVISIONS)
def test_an_output_depends_on_concepts_up_to_its_own_position(revision: str, training: bool) -> None:
    model = small_model(revision).train(training)
    embeddings, _, noise = small_batch()
    before = model(embeddings, noise=noise).predicted
    for changed in range(5):
        other = embeddings.clone()
        other[:, changed] = -other[:, changed]
        moved = (model(other, noise=noise).predicted - before).abs().amax(-1) > 0
        assert moved.tolist() == [[i >= changed for i in range(5)]] * 2


def test_padding_changes_no_real_position() -> None:
    model = small_model("final")
    embeddings, mask, noise = small_batch()
    other = torch.where(mask[..., None] > 0, embeddings, 7.0 * embeddings.flip(-1))
    before, after = (model(x, mask, noise=noise).predicted[mask.bool()] for x in (embeddings, other))
    assert torch.equal(before, after)


@pytest.mark.parametrize("revision", REVISIONS)
def test_everything_before_the_denoiser_gets_no_gradient(revision: str) -> None:
    model = small_model(revision).train()
    embeddings, mask, noise = small_batch()
    model(embeddings, mask, labels_for(revision), noise=noise).loss.backward()
    without = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
    assert without == WITHOUT_GRADIENT
    assert all(p.grad is None for name, p in model.named_parameters() if name.split(".")[0] in without)


def test_the_last_timestep_of_the_loop_is_run() -> None:
    model = small_model("final")
    embeddings, mask, noise = small_batch()
    for training, timestep in ((False, 3), (True, 7)):
        by_default, asked = (
            model.train(training)(embeddings, mask, noise=noise, timestep=t).predicted for t in (None, timestep)
        )
        assert torch.equal(by_default, asked)
    with pytest.raises(ConfigError, match="`timestep` must be from 0 to 8, but is 9"):
        model(embeddings, mask, noise=noise, timestep=9)


@pytest.mark.parametrize("revision", REVISIONS)
def test_without_labels_earlier_revisions_return_the_last_position(revision: str) -> None:
    embeddings, mask, noise = small_batch()
    model = small_model(revision)
    output = model(embeddings, mask, noise=noise)
    assert torch.equal(output.returned, output.predicted if revision == "final" else output.predicted[:, -1:])
    assert output.loss is None
    output = model(embeddings, mask, labels_for(revision), noise=noise)
    assert torch.equal(output.returned, output.predicted)


def test_guidance_moves_away_from_a_context_of_the_first_concept_alone() -> None:
    model = small_model("final")
    embeddings, mask, noise = small_batch()

    def at(scale: float, x: Tensor) -> Tensor:
        return model(x, mask, noise=noise, guidance_scale=scale).predicted

    def without(x: Tensor) -> Tensor:
        return 2 * at(1.0, x) - at(2.0, x)

    torch.testing.assert_close(at(1.0, embeddings), at(0.0, embeddings))
    other_first = torch.cat([-embeddings[:, :1], embeddings[:, 1:]], dim=1)
    other_rest = torch.cat([embeddings[:, :1], -embeddings[:, 1:]], dim=1)
    torch.testing.assert_close(without(embeddings), without(other_rest))
    assert not torch.allclose(without(embeddings), without(other_first))
    assert not torch.allclose(without(embeddings), at(1.0, embeddings))


def test_the_guidance_of_the_configuration_counts_in_evaluation_only() -> None:
    plain, guided = small_model("final"), small_model("final", cfg_scale=2.5)
    embeddings, mask, noise = small_batch()
    expected = plain(embeddings, mask, noise=noise, guidance_scale=2.5).predicted
    assert torch.equal(guided(embeddings, mask, noise=noise).predicted, expected)
    trained, expected = (model.train()(embeddings, mask, noise=noise).predicted for model in (guided, plain))
    assert torch.equal(trained, expected)


def test_noise_comes_from_the_generator_when_none_is_given() -> None:
    model = small_model("final")
    embeddings, mask, _ = small_batch()
    a, b, c = (model(embeddings, mask, generator=torch.Generator().manual_seed(s)).predicted for s in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_under_autocast_the_towers_are_bfloat16_and_the_result_is_float32() -> None:
    model = create_original({k: v.float() for k, v in small_state_dict("final").items()}, PUBLISHED)
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, given, out, name=name: seen.__setitem__(name, out.dtype))
    embeddings, mask, noise = small_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(embeddings.float(), mask, labels_for("final").float(), noise=noise)
        x = torch.randn(2, 5, 12)
        context = model.ContextualizerTower(x, mask.bool())
        denoised = model.DenoiserTower(x, x, torch.randn(2, 12), mask.bool())
    assert seen.pop("PostNet_D_Down") == output.predicted.dtype == output.loss.dtype == torch.float32
    assert {context.dtype, denoised.dtype, *seen.values()} == {torch.bfloat16}


@pytest.mark.parametrize(("revision", "layout"), list(zip(REVISIONS, ("documented", "documented", "final", "final"))))
def test_keys_tell_the_two_layouts_apart(revision: str, layout: str) -> None:
    weights = small_state_dict(revision)
    assert revision_of(weights) == layout
    assert create_original(weights, PUBLISHED).revision == REVISIONS[layout]
    assert create_original(weights, PUBLISHED, revision=revision).revision == REVISIONS[revision]


@pytest.mark.parametrize(("layout", "keys", "count"), [("documented", 124, 394_900_736), ("final", 136, 394_919_168)])
def test_full_size_has_the_published_counts(layout: str, keys: int, count: int) -> None:
    sizes = {"input_dim": 1024, "d_model": 1536, "d_latent": 1024, "num_context_layers": 3, "num_denoiser_layers": 4}
    sizes |= {"n_heads": 16, "d_ff": 6144, "AdaLN_Timestep_Embed_Dim": 256}
    sizes |= {"denoiser_iterations_pretrain": 80, "denoiser_iterations_inference": 40}
    with torch.device("meta"):
        model = OriginalPre1(original_config(sizes), layout)
    assert len({*model.state_dict(), "alpha_bar_schedule"}) == keys
    assert sum(p.numel() for p in model.parameters()) == count


def test_what_our_model_exports_as_published_is_read() -> None:
    config = Pre1Config(
        concept_dim=10,
        model_dim=12,
        num_context_layers=2,
        num_denoiser_layers=3,
        num_heads=2,
        ffn_dim=14,
        timestep_dim=4,
        schedule=ScheduleConfig(num_steps=8),
    )
    published = to_published(create_pre1_model(config).state_dict(), config)
    model = create_original(published, {**PUBLISHED, "d_latent": 10})
    assert not model.training
    name = "PostNet_D_Down.proj.bias"
    assert model.get_parameter(name).data_ptr() == published[name].data_ptr()


def test_a_checkpoint_that_is_not_published_is_told_by_its_keys() -> None:
    with pytest.raises(CheckpointError, match="these begin with `encoder.weight`"):
        revision_of(["encoder.weight"])
    with pytest.raises(CheckpointError, match="these are empty"):
        revision_of([])


def test_missing_unexpected_and_misshapen_weights_are_named() -> None:
    weights = small_state_dict("final")
    with pytest.raises(CheckpointError, match=r"unexpected keys \(9\): DenoiserTower\.layers\.0\.residual_connections"):
        create_original(weights, PUBLISHED, revision="documented")
    bias = weights.pop("PostNet_D_Down.proj.bias")
    with pytest.raises(CheckpointError, match=r"missing keys \(1\): PostNet_D_Down\.proj\.bias"):
        create_original(weights, PUBLISHED)
    weights["PostNet_D_Down.proj.bias"] = bias[:-1]
    with pytest.raises(CheckpointError, match=r"`PostNet_D_Down\.proj\.bias` has the shape \[9\], .* is \[10\]"):
        create_original(weights, PUBLISHED)


def test_the_schedule_buffer_must_be_the_one_of_the_configuration() -> None:
    weights = small_state_dict("final")
    for num_steps, factor, message in (
        (8, 1.0, None),
        (8, 0.9, "cosine schedule"),
        (10, 1.0, "has 11 entries, but .* need 9"),
    ):
        weights["alpha_bar_schedule"] = factor * NoiseSchedule(ScheduleConfig(num_steps=num_steps)).table.float()
        if message is None:
            create_original(weights, PUBLISHED)
        else:
            with pytest.raises(CheckpointError, match=message):
                create_original(weights, PUBLISHED)


def test_an_unknown_revision_is_refused_with_a_near_match() -> None:
    with pytest.raises(ConfigError, match='"finale" is not a known revision.* Did you mean "final"'):
        create_original(small_state_dict("final"), PUBLISHED, revision="finale")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_modle": 12}, 'field `d_modle`, .* Did you mean "d_model"'),
        ({"arch": "pre1_400m"}, "field `arch`"),
        ({"d_ff": None}, "`d_ff` must be a whole number of at least 1, but is None"),
        ({"d_ff": 14.0}, "`d_ff` must be a whole number"),
        ({"num_context_layers": True}, "`num_context_layers` must be a whole number"),
        ({"denoiser_iterations_pretrain": 0}, "`denoiser_iterations_pretrain` must be a whole number of at least 1"),
        ({"model_type": "llama"}, "`model_type` must be `lexa_lcm_pre1`, but is 'llama'"),
        ({"n_heads": 5}, r"`d_model` must be even and a multiple of `n_heads` \(5\), but is 12"),
        ({"d_model": 9, "n_heads": 3}, "`d_model` must be even"),
        ({"AdaLN_Timestep_Embed_Dim": 5}, "`AdaLN_Timestep_Embed_Dim` must be even"),
        ({"cfg_scale": -1.0}, "`cfg_scale` must be a number of at least 0, but is -1.0"),
    ],
)
def test_impossible_fields_of_a_published_configuration_are_refused_by_name(fields: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        original_config({**PUBLISHED, **fields})


def test_missing_fields_of_a_published_configuration_are_listed() -> None:
    fields = {k: v for k, v in PUBLISHED.items() if k not in ("d_latent", "n_heads", "cfg_scale", "dropout_context")}
    with pytest.raises(CheckpointError, match=r"lacks fields of LexaLCM-Pre1: d_latent, n_heads\.$"):
        original_config(fields)
    assert original_config({**PUBLISHED, "torch_dtype": "float32"}).num_schedule_steps == 8
