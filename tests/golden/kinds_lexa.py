"""Checks of cases recorded from LexaLCM-Pre1's public code, and of those that pin the model built here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lexalcm.diffusion.objective import Objective, ObjectiveConfig
from lexalcm.diffusion.parametrization import add_noise
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.layout import DocumentLayout
from lexalcm.models.layers.feed_forward import SwiGLU
from lexalcm.models.layers.frontend import Frontend, LatentBridge
from lexalcm.models.layers.modulation import AdaptiveRMSNorm, TimestepConditioning
from lexalcm.models.layers.precision import precise_linear
from lexalcm.models.layers.timestep import TimestepEncoder
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.interop import from_published, to_published
from lexalcm.models.pre1.original import OriginalPre1, create_original
from lexalcm.models.pre1.original_config import REVISIONS, original_config, revision_of
from lexalcm.models.pre1.original_layers import quarter_turn, rotary_tables, rotate, seen_keys, sinusoid

Precision = tuple[torch.dtype, dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], float]


def each_precision(folder: Path, tolerances: tuple[float, float]) -> list[Precision]:
    """For float32 and float64: weights, inputs, expected outputs and the tolerance."""
    weights = load_file(folder / "model.safetensors")
    inputs = load_file(folder / "io.safetensors")
    runs = []
    for dtype, name, tolerance in zip((torch.float32, torch.float64), ("io", "io64"), tolerances):
        w, io = ({k: v.to(dtype) if v.is_floating_point() else v for k, v in x.items()} for x in (weights, inputs))
        runs.append((dtype, w, io, load_file(folder / f"{name}.safetensors"), tolerance))
    return runs


def near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Relative to the largest entry, as the README of the golden vectors measures."""
    error = (found.detach() - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"{error:.2e} > {tolerance:.0e}"


def linear(weights: dict[str, Tensor], name: str, dtype: torch.dtype) -> torch.nn.Linear:
    out_dim, in_dim = weights[f"{name}.weight"].shape
    layer = torch.nn.Linear(in_dim, out_dim, dtype=dtype)
    layer.load_state_dict({p: weights[f"{name}.{p}"] for p in ("weight", "bias")})
    return layer


PARTS = (1e-5, 1e-12)


def published_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def original_of(folder: Path, case: dict[str, Any], weights: dict[str, Tensor]) -> OriginalPre1:
    """The whole published model, of which a part's case tests one part."""
    revision = case["revision"]
    # The keys tell the two named revisions apart, and of the other two which named one's layout they share.
    assert REVISIONS[revision_of(weights)].denoiser_norms == REVISIONS[revision].denoiser_norms
    model = create_original(weights, published_config(folder), revision=revision)
    assert sum(p.numel() for p in model.parameters()) == case["parameters"]
    return model


def record(module: torch.nn.Module) -> dict[str, Tensor]:
    """What the last call of each submodule returned, by path; filled when the module runs."""
    seen: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda _, given, result, name=name: seen.__setitem__(name, result))
    return seen


def check_norms(folder: Path, case: dict[str, Any]) -> None:
    for _, w, io, out, tolerance in each_precision(folder, PARTS):
        model = original_of(folder, case, w)
        for name in out:
            if name.startswith("out."):
                given = io["in.z" if "LatentBridge" in name else "in.x"]
                near(model.get_submodule(name.removeprefix("out."))(given), out[name], tolerance)


def check_timestep(folder: Path, case: dict[str, Any]) -> None:
    """The published embedder, and ours, which has no clamp; the final revision's is applied to what ours gives."""
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        published = original_of(folder, case, w).TimestepEmbedder
        timesteps, features = io["in.timestep"].reshape(-1), published.lin1.in_features
        near(sinusoid(timesteps, features), out["out.sinusoid"], tolerance)
        near(published(timesteps), out["out.embedding"], tolerance)
        encoder = TimestepEncoder(features, published.lin2.out_features).to(dtype)
        names = [(ours, f"TimestepEmbedder.{theirs}") for ours, theirs in (("fc1", "lin1"), ("fc2", "lin2"))]
        encoder.load_state_dict({f"{a}.{p}": w[f"{b}.{p}"] for a, b in names for p in ("weight", "bias")})
        found = encoder(timesteps.long())
        near(found, out["out.before_clamp"], tolerance)
        near(found.clamp(-10, 10) if published.clamped else found, out["out.embedding"], tolerance)


def check_nets(folder: Path, case: dict[str, Any]) -> None:
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        published = original_of(folder, case, w)
        for name, given in (("PreNet_C_Up", "in.concept"), ("PreNet_D_Up", "in.latent")):
            width, concept_dim = w[f"{name}.proj.weight"].shape
            frontend = Frontend(concept_dim, width).to(dtype)
            keys = [f"{part}.{p}" for part in ("norm", "proj") for p in ("weight", "bias")]
            frontend.load_state_dict({key: w[f"{name}.{key}"] for key in keys})
            for net in (frontend, published.get_submodule(name)):
                near(net.norm(io[given]), out[f"out.{name}.norm"], tolerance)
                near(net(io[given]), out[f"out.{name}"], tolerance)
            near(frontend(io[given], precise=True), out[f"out.{name}"], tolerance)
        for name in ("PostNet_C_Down", "PostNet_D_Down"):
            near(precise_linear(io["in.hidden"], linear(w, f"{name}.proj", dtype)), out[f"out.{name}"], tolerance)
            near(published.get_submodule(name)(io["in.hidden"]), out[f"out.{name}"], tolerance)


def check_bridge(folder: Path, case: dict[str, Any]) -> None:
    """The published bridge, and ours with its norm, whose eps stands outside the root; that of ours stands inside."""
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        published = original_of(folder, case, w).LatentBridge
        near(published.proj[:2](io["in.latent"]), out["out.LatentBridge.proj.1"], tolerance)
        near(published(io["in.latent"]), out["out.LatentBridge"], tolerance)
        bridge = LatentBridge(w["LatentBridge.proj.1.weight"].size(0), 0.0).to(dtype)
        bridge.norm, bridge.proj = published.proj[0], published.proj[1]
        near(bridge(io["in.latent"]), out["out.LatentBridge"], tolerance)


def check_rope(folder: Path, case: dict[str, Any]) -> None:
    for _, _, io, out, tolerance in each_precision(folder, PARTS):
        q, k = io["in.q"], io["in.k"]
        for found, name in zip(rotary_tables(q.size(1), q), ("sin", "cos")):
            near(found, out[f"out.{name}"], tolerance)
        near(quarter_turn(q), out["out.rotate_q"], tolerance)
        near(rotate(q), out["out.q"], tolerance)
        near(rotate(k), out["out.k"], tolerance)


def probabilities(sublayer: torch.nn.Module, *given: Tensor) -> tuple[Tensor, Tensor]:
    """An attention sublayer's result, and the probabilities in its core."""
    core = sublayer.attn["core"]
    inputs: list[Tensor] = []
    handle = core.register_forward_pre_hook(lambda _, args: inputs.extend(args))
    result = sublayer(*given)
    handle.remove()
    query, key, _, seen = inputs
    return result, core.probabilities(query, key, seen)


def check_context_self_attention(folder: Path, case: dict[str, Any]) -> None:
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        real = io["in.padding_mask"].bool()
        causal = seen_keys(torch.ones_like(real[:1]), real.size(1))
        assert torch.equal(causal.to(dtype), out["out.causal_mask"])
        layer = original_of(folder, case, w).ContextualizerTower.layers[0]
        y, probs = probabilities(layer.self_attention, io["in.x"], seen_keys(real, real.size(1)))
        near(probs, out["out.probs"], tolerance)
        near(y, out["out.y"], tolerance)


def check_swiglu(folder: Path, case: dict[str, Any]) -> None:
    """The published one, and ours with what it joins taken apart."""
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        published = original_of(folder, case, w).ContextualizerTower.layers[0].mlp
        near(published.linear1(io["in.x"]), out["out.linear1"], tolerance)
        near(published(io["in.x"]), out["out.y"], tolerance)
        swiglu = SwiGLU(published.linear2.out_features, published.linear2.in_features).to(dtype)
        state = {f"output_proj.{p}": value for p, value in published.linear2.state_dict().items()}
        for p, joined in published.linear1.state_dict().items():
            state[f"gate_proj.{p}"], state[f"inner_proj.{p}"] = joined.chunk(2)
        swiglu.load_state_dict(state)
        near(swiglu(io["in.x"]), out["out.y"], tolerance)


def check_tower(folder: Path, case: dict[str, Any]) -> None:
    """Either tower: every layer and sublayer that is recorded, and the result."""
    for _, w, io, out, tolerance in each_precision(folder, PARTS):
        model, x, real = original_of(folder, case, w), io["in.x"], io["in.padding_mask"].bool()
        denoises = case["kind"] == "denoiser_tower"
        tower = model.DenoiserTower if denoises else model.ContextualizerTower
        seen = record(tower)
        y = tower(x, io["in.context"], io["in.t_emb"], real, keeps(io)) if denoises else tower(x, real)
        near(y, out["out.y"], tolerance)
        layers = [name for name in out if name.startswith("out.layer.")]
        assert layers
        for name in layers:
            near(seen[name.replace("out.layer.", "layers.")], out[name], tolerance)


def keeps(io: dict[str, Tensor]) -> list[Tensor] | None:
    """The recorded row-keep masks, by layer."""
    count = sum(name.startswith("rec.keep.") for name in io)
    return [io[f"rec.keep.{i}"].bool() for i in range(count)] or None


def check_denoiser_sublayer(folder: Path, case: dict[str, Any]) -> None:
    """One modulated sublayer of the published denoiser; its modulator also against ours."""
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        layer = original_of(folder, case, w).DenoiserTower.layers[0]
        x, embedding, real = io["in.x"], io["in.t_emb"], io["in.padding_mask"].bool()
        if case["kind"] == "ff_adaln":
            sublayer = layer.mlp
            y = sublayer(x, embedding)
        else:
            if case["kind"] == "denoiser_self_attention":
                sublayer = layer.self_attention
                y, probs = probabilities(sublayer, x, embedding, seen_keys(real, real.size(1)))
            else:
                sublayer = layer.cross_attention
                keep = keeps(io)
                memory, seen = sublayer.memory(io["in.context"], real, None if keep is None else keep[0])
                y, probs = probabilities(sublayer, x, embedding, memory, seen)
            near(probs, out["out.probs"], tolerance)
        near(y, out["out.y"], tolerance)
        raw = [out[f"out.{name}_raw"] for name in ("gamma", "beta", "alpha")]
        for found, expected in zip(sublayer.modulator.chunks(embedding), raw):
            near(found, expected, tolerance)
        rows = torch.arange(len(embedding))
        for timesteps in (rows, rows.repeat(2)):  # as given, and gathered from a table
            conditioning = TimestepConditioning(timesteps, embedding.__getitem__, rows)
            scale, shift, gate = conditioning.apply(sublayer.modulator.ff[1]).chunk(3, dim=-1)
            ours = conditioning.modulation(
                scale=scale, shift=shift, gate=gate, norm=AdaptiveRMSNorm(scale.size(-1), affine=False)
            )
            for found, expected in zip((ours.scale - 1.0, ours.shift, ours.gate), raw):
                near(found, expected[timesteps], tolerance)


def check_loss(folder: Path, case: dict[str, Any]) -> None:
    for _, w, io, out, tolerance in each_precision(folder, PARTS):
        loss = original_of(folder, case, w).loss
        predicted, labels = io["in.pred"], io["in.target"]
        real = io.get("in.mask", torch.ones(predicted.shape[:2])).bool()
        found = {"loss": loss(predicted, labels, real)}
        if "out.loss_single_row" in out:
            found["loss_single_row"] = loss(predicted[:1], labels[:1], real[:1])
        if "out.loss_all_masked" in out:
            assert loss(predicted, labels, torch.zeros_like(real)) == out["out.loss_all_masked"] == 0.0
        if "out.loss_2d" in out:
            found["loss_2d"] = loss(predicted[:, 0], labels[:, 0], real[:, :1])
        if "out.loss_truncated" in out:
            # To which length is not recorded: one of them gives the result, whichever of the two is cut.
            cuts = [loss(predicted[:, :n], labels, real) for n in range(1, predicted.size(1))]
            assert cuts == [loss(predicted, labels[:, :n], real) for n in range(1, predicted.size(1))]
            found["loss_truncated"] = min(cuts, key=lambda cut: abs(cut - out["out.loss_truncated"]))
        for name, value in found.items():
            near(value.reshape(1), out[f"out.{name}"], tolerance)


def check_forward(folder: Path, case: dict[str, Any]) -> None:
    """The whole published model: activations, results, loss and gradients."""
    if any(value.dtype == torch.bfloat16 for value in load_file(folder / "io.safetensors").values()):
        check_forward_in_bfloat16(folder, case)
        return
    doubles = not REVISIONS[case["revision"]].denoiser_norms
    for dtype, w, io, out, tolerance in each_precision(folder, (3e-5, 1e-11) if doubles else (1e-5, 1e-12)):
        model, found = run_original(folder, case, w, io, with_labels="out.loss" in out)
        expected = {name: value for name, value in out.items() if name.startswith(("act.", "out."))}
        for name, value in expected.items():
            near(found[name].reshape(value.shape), value, tolerance)
        if "parameters_without_gradient" in case:
            found["out.loss"].backward()
            without = {name for name, p in model.named_parameters() if p.grad is None}
            assert without == set(case["parameters_without_gradient"])
            least = 1e-11 if dtype == torch.float64 else (5e-4 if doubles else 1e-4)
            check_original_gradients(model, out, least)


def run_original(
    folder: Path, case: dict[str, Any], w: dict[str, Tensor], io: dict[str, Tensor], *, with_labels: bool
) -> tuple[OriginalPre1, dict[str, Tensor]]:
    """One call with the recorded draws, the timestep left to the model; what it gave by the names of the case."""
    model = original_of(folder, case, w)
    model.train(int(io["rec.timestep_last"]) != model.config.num_inference_steps - 1)
    seen = record(model)
    tower_inputs: list[Tensor] = []
    model.DenoiserTower.register_forward_pre_hook(lambda _, args: tower_inputs.__setitem__(slice(None), args))
    output = model(
        io["in.embeddings"],
        io.get("in.attention_mask"),
        io["in.labels"] if with_labels else None,
        noise=io["rec.noise_last"],
        row_keep=keeps(io),
    )
    near(model.schedule.alpha_cumprod(io["rec.timestep_last"].long()), io["rec.alpha_bar_last"], 1e-6)
    found = {f"act.{name}": value for name, value in seen.items()}
    found["act.x_t"], found["act.context"] = tower_inputs[:2]
    found["out.logits"], found["out.returned"] = output.predicted, output.returned
    if output.loss is not None:
        found["out.loss"] = output.loss
    return model, found


def check_original_gradients(model: OriginalPre1, out: dict[str, Tensor], tolerance: float) -> None:
    expected = {k.removeprefix("grad."): v for k, v in out.items() if k.startswith("grad.")}
    for name, value in expected.items():
        error = (model.get_parameter(name).grad - value).abs().max()
        assert error <= tolerance * max(v.abs().max() for v in expected.values()), f"{name}: {error:.2e}"


def check_forward_in_bfloat16(folder: Path, case: dict[str, Any]) -> None:
    """Values loosely, and which activation has which type."""
    w, io = load_file(folder / "model.safetensors"), load_file(folder / "io.safetensors")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, found = run_original(folder, case, w, io, with_labels="out.loss" in io)
    for name, value in io.items():
        if name.startswith("out."):
            near(found[name].reshape(value.shape), value, 5e-2)
        if name.startswith("act."):
            assert found[name].dtype == value.dtype, name


def check_noise_schedule(folder: Path, case: dict[str, Any]) -> None:
    for dtype, _, _, out, tolerance in each_precision(folder, PARTS):
        tables = {k: v for k, v in out.items() if k.startswith("out.alpha_bar_T")}
        assert tables
        for name, expected in tables.items():
            schedule = NoiseSchedule(ScheduleConfig(num_steps=int(name.removeprefix("out.alpha_bar_T"))))
            near(schedule.table.to(dtype), expected, tolerance)
            assert schedule.has_zero_terminal_snr


def config_of(folder: Path) -> Pre1Config:
    c = published_config(folder)
    return Pre1Config(
        concept_dim=c["input_dim"],
        model_dim=c["d_model"],
        num_context_layers=c["num_context_layers"],
        num_denoiser_layers=c["num_denoiser_layers"],
        num_heads=c["n_heads"],
        ffn_dim=c["d_ff"],
        timestep_dim=c["AdaLN_Timestep_Embed_Dim"],
        denoiser_norm_weights=c["arch"].endswith("final"),
        context_dropout_p=0.0,
        bridge_dropout_p=0.0,
        denoiser_dropout_p=0.0,
    )


def check_proposal(folder: Path, case: dict[str, Any]) -> None:
    """The whole model, packed and padded: prediction, loss and every gradient."""
    config = config_of(folder)
    for packed in (False, True):
        for dtype, w, io, out, tolerance in each_precision(folder, (3e-5, 1e-11)):
            model = create_pre1_model(config).to(dtype)
            model.load_state_dict(from_published({k: v for k, v in w.items() if "." in k and k[0].isupper()}, config))
            real = io["in.mask"].bool()
            fields = [io[f"in.{name}"] for name in ("concepts", "noise", "timesteps", "context_drop", "target_mask")]
            layout = DocumentLayout(real.sum(1).tolist(), packed=packed, width=None if packed else real.size(1))
            if packed:
                fields = [field[real] for field in fields]
            concepts, noise, timesteps, dropped, targets = fields
            # Schedule values are stored in float32; at float64 tolerances only the same ones will do.
            near(model.schedule.alpha_cumprod(io["in.timesteps"]), io["in.alpha_bar"], 1e-6)
            alpha_bar = io["in.alpha_bar"][real] if packed else io["in.alpha_bar"]
            noisy = add_noise(concepts, noise, alpha_bar)
            predicted = model.predict(noisy, timesteps, model.encode(concepts, layout), layout, dropped=dropped.bool())
            terms = Objective(ObjectiveConfig(), model.schedule).loss(predicted, concepts, timesteps, targets.bool())
            loss = terms.loss_sum / targets.sum()
            loss.backward()
            near(predicted if packed else predicted[real], out["out.x0"][real], tolerance)
            near(loss.reshape(1), out["out.loss"], tolerance)
            check_gradients(model, config, out, tolerance if dtype == torch.float64 else 1e-4)


def check_gradients(model: Any, config: Pre1Config, out: dict[str, Tensor], tolerance: float) -> None:
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == model.inert_parameters()
    state = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    gradients = to_published(state, config)
    expected = {k.removeprefix("grad."): v for k, v in out.items() if k.startswith("grad.")}
    largest = max(v.abs().max() for v in expected.values())
    for name, value in expected.items():
        assert (gradients[name] - value).abs().max() <= tolerance * largest, name


def entries_of(keys: Any) -> list[tuple[str, dict[str, Any]]]:
    """Of either form that a list of keys may have: a mapping, or a list of entries that name their key."""
    return list(keys.items()) if isinstance(keys, dict) else [(entry["key"], entry) for entry in keys]


def check_full_keys(keys: dict[str, Any]) -> None:
    """Both layouts at full size: names and shapes equal those of the published checkpoints, in either model."""
    for layout in ("documented", "final"):
        with torch.device("meta"):
            config = Pre1Config(denoiser_norm_weights=layout == "final")
            model = create_pre1_model(config)
            original = OriginalPre1(original_config(keys["config"]), layout)
        # The published layout has no normalizer; whether ours is the identity cannot be asked without values.
        weights = {name: value for name, value in model.state_dict().items() if not name.startswith("normalizer.")}
        ours = to_published(weights, config)
        published = {key: tuple(entry["shape"]) for key, entry in entries_of(keys[layout]["keys"])}
        assert revision_of(published) == layout
        schedule = published.pop("alpha_bar_schedule", None)
        ours.pop("alpha_bar_schedule")
        assert schedule is None or len(schedule) == 1
        for state in (ours, original.state_dict()):
            assert {name: tuple(value.shape) for name, value in state.items()} == published
        for whole in (model, original):
            assert sum(p.numel() for p in whole.parameters()) == keys[layout]["parameters"]


KINDS = {
    "norms": check_norms,
    "timestep": check_timestep,
    "pre_and_post_nets": check_nets,
    "latent_bridge": check_bridge,
    "rope": check_rope,
    "context_self_attention": check_context_self_attention,
    "swiglu": check_swiglu,
    "contextualizer_tower": check_tower,
    "ff_adaln": check_denoiser_sublayer,
    "denoiser_self_attention": check_denoiser_sublayer,
    "denoiser_cross_attention": check_denoiser_sublayer,
    "denoiser_tower": check_tower,
    "noise_schedule": check_noise_schedule,
    "loss": check_loss,
    "forward": check_forward,
    "proposal": check_proposal,
}
