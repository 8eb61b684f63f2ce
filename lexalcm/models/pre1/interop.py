"""Names of the published LexaLCM-Pre1 checkpoints, both ways and strictly (specification, table 7.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor

from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import CheckpointError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.unwrap import unwrap_state_dict

_SCHEDULE_KEY: Final = "alpha_bar_schedule"

# (ours, published); {i} is a layer. The published SwiGLU joins gate_proj and inner_proj into linear1, gate first.
_ATTENTION: Final = [("q_proj", "w_q"), ("k_proj", "w_k"), ("v_proj", "w_v"), ("output_proj", "w_o")]
_PLAIN: Final = [
    *((f"timestep_encoder.fc{n}.{p}", f"TimestepEmbedder.lin{n}.{p}") for n in (1, 2) for p in ("weight", "bias")),
    *(
        (f"{ours}.{part}.{p}", f"{theirs}.{part}.{p}")
        for ours, theirs in (("context_frontend", "PreNet_C_Up"), ("denoiser_frontend", "PreNet_D_Up"))
        for part in ("norm", "proj")
        for p in ("weight", "bias")
    ),
    ("contextualizer.layer_norm.weight", "ContextualizerTower.norm.weight"),
    *((f"context_down_proj.{p}", f"PostNet_C_Down.proj.{p}") for p in ("weight", "bias")),
    ("latent_bridge.norm.weight", "LatentBridge.proj.0.weight"),
    *((f"latent_bridge.proj.{p}", f"LatentBridge.proj.1.{p}") for p in ("weight", "bias")),
    ("denoiser.layer_norm.weight", "DenoiserTower.final_norm.weight"),
    *((f"output_proj.{p}", f"PostNet_D_Down.proj.{p}") for p in ("weight", "bias")),
]
_CONTEXT_LAYER: Final = [
    *((f"self_attn.{ours}.weight", f"self_attention.attn.core.{theirs}.weight") for ours, theirs in _ATTENTION),
    *((f"ffn.output_proj.{p}", f"mlp.linear2.{p}") for p in ("weight", "bias")),
    ("self_attn_layer_norm.weight", "residual_connections.0.norm.weight"),
    ("ffn_layer_norm.weight", "residual_connections.1.norm.weight"),
]
_DENOISER_LAYER: Final = [
    *(
        (f"{ours_block}.{ours}.weight", f"{theirs_block}.attn.core.{theirs}.weight")
        for ours_block, theirs_block in (("self_attn", "self_attention"), ("cross_attn", "cross_attention"))
        for ours, theirs in _ATTENTION
    ),
    *(
        (f"{ours}_modulator.{p}", f"{theirs}.modulator.ff.1.{p}")
        for ours, theirs in (("self_attn", "self_attention"), ("cross_attn", "cross_attention"), ("ffn", "mlp"))
        for p in ("weight", "bias")
    ),
    *((f"ffn.output_proj.{p}", f"mlp.linear2.{p}") for p in ("weight", "bias")),
]
_DENOISER_NORMS: Final = [
    (f"{ours}_layer_norm.weight", f"residual_connections.{n}.norm.weight")
    for n, ours in enumerate(("self_attn", "cross_attn", "ffn"))
]
_OWN_BUFFERS: Final = ("normalizer.center", "normalizer.scale")
_MOST_LISTED: Final = 8


def _renamed(config: Pre1Config) -> list[tuple[str, str]]:
    """All one-to-one pairs (ours, published) of a model with this configuration."""
    pairs = list(_PLAIN)
    for i in range(config.num_context_layers):
        pairs += [(f"contextualizer.layers.{i}.{a}", f"ContextualizerTower.layers.{i}.{b}") for a, b in _CONTEXT_LAYER]
    layer = _DENOISER_LAYER + (_DENOISER_NORMS if config.denoiser_norm_weights else [])
    for i in range(config.num_denoiser_layers):
        pairs += [(f"denoiser.layers.{i}.{a}", f"DenoiserTower.layers.{i}.{b}") for a, b in layer]
    return pairs


def _joined(config: Pre1Config) -> list[tuple[tuple[str, str], str]]:
    """All pairs of ((gate, inner), published linear1)."""
    layers = [
        (f"contextualizer.layers.{i}", f"ContextualizerTower.layers.{i}") for i in range(config.num_context_layers)
    ]
    layers += [(f"denoiser.layers.{i}", f"DenoiserTower.layers.{i}") for i in range(config.num_denoiser_layers)]
    return [
        ((f"{ours}.ffn.gate_proj.{p}", f"{ours}.ffn.inner_proj.{p}"), f"{theirs}.mlp.linear1.{p}")
        for ours, theirs in layers
        for p in ("weight", "bias")
    ]


def is_published(keys: Iterable[str]) -> bool:
    """Tells a checkpoint with published names from one with ours."""
    return any(re.match(r"(TimestepEmbedder|DenoiserTower|PreNet_D_Up)\.", key) for key in keys)


def has_denoiser_norms(keys: Iterable[str]) -> bool:
    """Whether published names are those of the later layout, which has norms on the denoiser's residual branches."""
    return any(re.match(r"DenoiserTower\.layers\.\d+\.residual_connections\.", key) for key in keys)


def from_published(state_dict: Mapping[str, Tensor], config: Pre1Config) -> dict[str, Tensor]:
    """Renames a published state dict to ours; the normalizer, which it lacks, becomes the identity.

    Our exports of a model that normalizes add its statistics under our names: the published layout has no place for
    them.

    :raises CheckpointError: A key is missing or unexpected, or ``alpha_bar_schedule`` is not the cosine schedule.
    """
    _check_revision(state_dict, config)
    renamed, joined = _renamed(config), _joined(config)
    wanted = [theirs for _, theirs in renamed] + [theirs for _, theirs in joined]
    if any(name in state_dict for name in _OWN_BUFFERS):
        wanted += _OWN_BUFFERS
    check_keys(state_dict, wanted, optional={_SCHEDULE_KEY})
    if _SCHEDULE_KEY in state_dict:
        _check_schedule(state_dict[_SCHEDULE_KEY])
    out = {ours: state_dict[theirs] for ours, theirs in renamed}
    for (gate, inner), theirs in joined:
        out[gate], out[inner] = state_dict[theirs].chunk(2, dim=0)
    identity = (torch.zeros(config.concept_dim), torch.ones(config.concept_dim))
    for name, value in zip(_OWN_BUFFERS, identity):
        out[name] = state_dict.get(name, value)
    return out


def to_published(state_dict: Mapping[str, Tensor], config: Pre1Config) -> dict[str, Tensor]:
    """Renames our state dict to the published layout, ``alpha_bar_schedule`` included.

    Statistics of a normalizer that is not the identity keep our names.

    :raises CheckpointError: A key is missing or unexpected: the published layout has no place for a linear context
        path.
    """
    renamed, joined = _renamed(config), _joined(config)
    wanted = [ours for ours, _ in renamed] + [name for pair, _ in joined for name in pair]
    check_keys(state_dict, wanted, optional=set(_OWN_BUFFERS))
    out = {theirs: state_dict[ours] for ours, theirs in renamed}
    out.update({theirs: torch.cat([state_dict[gate], state_dict[inner]]) for (gate, inner), theirs in joined})
    out[_SCHEDULE_KEY] = NoiseSchedule(config.schedule).table.float()
    if normalizes(state_dict):
        out.update({name: state_dict[name] for name in _OWN_BUFFERS})
    return out


def normalizes(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict, ours or published, holds statistics of concepts that are not the identity."""
    center, scale = (state_dict.get(name) for name in _OWN_BUFFERS)
    return center is not None and scale is not None and bool((center != 0).any() or (scale != 1).any())


def split_off_schedule(state_dict: Mapping[str, Tensor], *, num_steps: int) -> dict[str, Tensor]:
    """Takes ``alpha_bar_schedule`` out, which may be missing.

    :raises CheckpointError: It is not the cosine schedule of ``num_steps`` steps.
    """
    schedule = state_dict.get(_SCHEDULE_KEY)
    if schedule is not None:
        _check_schedule(schedule)
        if schedule.numel() != num_steps + 1:
            raise CheckpointError(
                f"`{_SCHEDULE_KEY}` has {schedule.numel()} entries, but the configuration's {num_steps} steps need "
                f"{num_steps + 1}."
            )
    return {name: value for name, value in state_dict.items() if name != _SCHEDULE_KEY}


def convert_pre1_state_dict(state_dict: dict[str, object], config: Pre1Config) -> dict[str, object]:
    """What fairseq2's loader calls on every checkpoint: ours pass, published ones are renamed, wrappers removed."""
    state = unwrap_state_dict(state_dict)
    if is_published(state):
        return dict(from_published(state, config))  # type: ignore[arg-type]
    return state


def _check_revision(state_dict: Mapping[str, Tensor], config: Pre1Config) -> None:
    has_norms = has_denoiser_norms(state_dict)
    if has_norms != config.denoiser_norm_weights:
        found, means = ("final", "true") if has_norms else ("documented", "false")
        arch = "pre1_400m_final" if has_norms else "pre1_400m"
        raise CheckpointError(
            f"The checkpoint is of the published revision `{found}`, which `denoiser_norm_weights: {means}` stands for "
            f"(arch {arch}), but the configuration says {str(config.denoiser_norm_weights).lower()}."
        )


def check_keys(state_dict: Mapping[str, Tensor], wanted: list[str], *, optional: set[str]) -> None:
    missing = sorted(set(wanted) - set(state_dict))
    unexpected = sorted(set(state_dict) - set(wanted) - optional)
    if missing or unexpected:
        parts = [
            f"{word} keys ({len(keys)}): {', '.join(keys[:_MOST_LISTED])}{', ...' if len(keys) > _MOST_LISTED else ''}"
            for word, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise CheckpointError("The checkpoint does not fit the model's configuration.\n" + "\n".join(parts))


def _check_schedule(published: Tensor) -> None:
    num_steps = published.numel() - 1
    ours = NoiseSchedule(ScheduleConfig(kind="cosine", num_steps=max(num_steps, 1))).table
    if num_steps < 1 or not torch.allclose(published.double().cpu(), ours, atol=1e-6):
        raise CheckpointError(
            f"`{_SCHEDULE_KEY}` of {published.numel()} entries is not the cosine schedule of {num_steps} steps that "
            f"LexaLCM-Pre1 uses.\nThe checkpoint belongs to another model, or is damaged."
        )
