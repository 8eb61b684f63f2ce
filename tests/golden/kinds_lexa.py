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
from lexalcm.models.layers.modulation import TimestepConditioning
from lexalcm.models.layers.precision import precise_linear
from lexalcm.models.layers.timestep import TimestepEncoder
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.interop import from_published, to_published
from lexalcm.models.pre1.model import Frontend, LatentBridge

_ORIGINAL = "what the published code computes, as against ours, is an issue of its own"
LATER = dict.fromkeys(
    (
        "norms",
        "rope",
        "context_self_attention",
        "contextualizer_tower",
        "denoiser_self_attention",
        "denoiser_cross_attention",
        "denoiser_tower",
        "loss",
        "forward",
    ),
    _ORIGINAL,
)


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


def check_timestep(folder: Path, case: dict[str, Any]) -> None:
    """Ours has no clamp; the final revision's is applied to what ours gives."""
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        features, model_dim = w["TimestepEmbedder.lin1.weight"].size(1), w["TimestepEmbedder.lin2.weight"].size(0)
        encoder = TimestepEncoder(features, model_dim).to(dtype)
        names = [(ours, f"TimestepEmbedder.{theirs}") for ours, theirs in (("fc1", "lin1"), ("fc2", "lin2"))]
        encoder.load_state_dict({f"{a}.{p}": w[f"{b}.{p}"] for a, b in names for p in ("weight", "bias")})
        found = encoder(io["in.timestep"].reshape(-1).long()).reshape(out["out.before_clamp"].shape)
        near(found, out["out.before_clamp"], tolerance)
        near(found.clamp(-10, 10) if case["revision"] == "final" else found, out["out.embedding"], tolerance)


def check_nets(folder: Path, case: dict[str, Any]) -> None:
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        for name, given in (("PreNet_C_Up", "in.concept"), ("PreNet_D_Up", "in.latent")):
            width, concept_dim = w[f"{name}.proj.weight"].shape
            frontend = Frontend(concept_dim, width).to(dtype)
            keys = [f"{part}.{p}" for part in ("norm", "proj") for p in ("weight", "bias")]
            frontend.load_state_dict({key: w[f"{name}.{key}"] for key in keys})
            near(frontend.norm(io[given]), out[f"out.{name}.norm"], tolerance)
            near(frontend(io[given]), out[f"out.{name}"], tolerance)
            near(frontend(io[given], precise=True), out[f"out.{name}"], tolerance)
        for name in ("PostNet_C_Down", "PostNet_D_Down"):
            near(precise_linear(io["in.hidden"], linear(w, f"{name}.proj", dtype)), out[f"out.{name}"], tolerance)


class OriginalRMSNorm(torch.nn.Module):
    """The published norm, whose eps stands outside the root; ours stands inside."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.square().mean(-1, keepdim=True).sqrt() + 1e-8)


def check_bridge(folder: Path, case: dict[str, Any]) -> None:
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        bridge = LatentBridge(w["LatentBridge.proj.1.weight"].size(0), 0.0).to(dtype)
        bridge.norm = OriginalRMSNorm(w["LatentBridge.proj.0.weight"])
        bridge.proj.load_state_dict({p: w[f"LatentBridge.proj.1.{p}"] for p in ("weight", "bias")})
        near(bridge(io["in.latent"]), out["out.LatentBridge"], tolerance)


def check_swiglu(folder: Path, case: dict[str, Any]) -> None:
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        prefix = "ContextualizerTower.layers.0.mlp"
        joined, last = f"{prefix}.linear1", f"{prefix}.linear2"
        swiglu = SwiGLU(w[f"{last}.weight"].size(0), w[f"{last}.weight"].size(1)).to(dtype)
        state = {f"output_proj.{p}": w[f"{last}.{p}"] for p in ("weight", "bias")}
        for p in ("weight", "bias"):
            state[f"gate_proj.{p}"], state[f"inner_proj.{p}"] = w[f"{joined}.{p}"].chunk(2)
        swiglu.load_state_dict(state)
        near(swiglu(io["in.x"]), out["out.y"], tolerance)


def check_modulators(folder: Path, case: dict[str, Any]) -> None:
    """The modulator's chunks; the bounded feed-forward behind it belongs to the published wiring."""
    for dtype, w, io, out, tolerance in each_precision(folder, PARTS):
        modulator = linear(w, "DenoiserTower.layers.0.mlp.modulator.ff.1", dtype)
        embedding = io["in.t_emb"]
        rows = torch.arange(len(embedding))
        for timesteps in (rows, rows.repeat(2)):  # as given, and gathered from a table
            conditioning = TimestepConditioning(timesteps, embedding.__getitem__, rows)
            found = conditioning.modulation(modulator)
            near(found.scale - 1.0, out["out.gamma_raw"][timesteps], tolerance)
            near(found.shift, out["out.beta_raw"][timesteps], tolerance)
            near(found.gate, out["out.alpha_raw"][timesteps], tolerance)


def check_noise_schedule(folder: Path, case: dict[str, Any]) -> None:
    for dtype, _, _, out, tolerance in each_precision(folder, PARTS):
        tables = {k: v for k, v in out.items() if k.startswith("out.alpha_bar_T")}
        assert tables
        for name, expected in tables.items():
            schedule = NoiseSchedule(ScheduleConfig(num_steps=int(name.removeprefix("out.alpha_bar_T"))))
            near(schedule.table.to(dtype), expected, tolerance)
            assert schedule.has_zero_terminal_snr


def config_of(folder: Path) -> Pre1Config:
    c = json.loads((folder / "config.json").read_text(encoding="utf-8"))
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
    """Both layouts at full size: names and shapes equal those of the published checkpoints."""
    for layout in ("documented", "final"):
        with torch.device("meta"):
            config = Pre1Config(denoiser_norm_weights=layout == "final")
            model = create_pre1_model(config)
        ours = to_published(model.state_dict(), config)
        published = {key: tuple(entry["shape"]) for key, entry in entries_of(keys[layout]["keys"])}
        schedule = published.pop("alpha_bar_schedule", None)
        ours.pop("alpha_bar_schedule")
        assert schedule is None or len(schedule) == 1
        assert {name: tuple(value.shape) for name, value in ours.items()} == published
        assert sum(p.numel() for p in model.parameters()) == keys[layout]["parameters"]


KINDS = {
    "timestep": check_timestep,
    "pre_and_post_nets": check_nets,
    "latent_bridge": check_bridge,
    "swiglu": check_swiglu,
    "ff_adaln": check_modulators,
    "noise_schedule": check_noise_schedule,
    "proposal": check_proposal,
}
