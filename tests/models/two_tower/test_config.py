"""What a configuration refuses, and what it accepts with a word in the log."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq2.runtime.config_registry import get_config
from fairseq2.runtime.dependency import get_dependency_resolver

sys.path.insert(0, str(Path(__file__).parent))

from variants import config_of

from lexalcm.errors import ConfigError
from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.base_lcm.factory import create_base_model
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.two_tower.config import TwoTowerConfig
from lexalcm.models.two_tower.factory import create_two_tower_model


def spoilt(path: str, value: Any) -> TwoTowerConfig:
    config = config_of("like the 1.6B")
    *sections, name = path.split(".")
    target: Any = config
    for section in sections:
        target = getattr(target, section)
    assert hasattr(target, name)
    setattr(target, name, value)
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "base_lcm", "`model_type` must be two_tower_diffusion_lcm"),
        ("max_seq_len", 0, "`max_seq_len` must be at least 1"),
        ("context_encoder.num_attn_heads", 5, r"`context_encoder.num_attn_heads` \(5\) must divide `model_dim` \(24\)"),
        ("context_encoder.num_attn_heads", 8, "needs heads of an even dimension"),
        ("context_encoder.dropout_p", 1.0, r"`context_encoder.dropout_p` must be in \[0, 1\)"),
        ("context_encoder.layer_normalization_style", "rsm", 'Did you mean "rms"'),
        ("context_encoder.norm_order_style", "middle", "Known: normformer, post, pre"),
        ("denoiser.norm_order_style", "post", "cannot be modulated"),
        ("denoiser.timestep_embed_dim", 16, r"`denoiser.timestep_embed_dim` \(16\) must equal `model_dim` \(24\)"),
        ("denoiser.pre_denoiser.activation_name", "swish", "`denoiser.pre_denoiser.activation_name`"),
        ("denoiser.ffn_inner_activation_name", "gelu_new", 'Did you mean "gelu"'),
        ("frontend.pre_linear_init_fn", "xaviar", 'Did you mean "xavier"'),
        ("noise_scheduler.beta_schedule", "cosine", "`noise_scheduler.beta_schedule`"),
        ("noise_scheduler.prediction_type", "noise", "`noise_scheduler.prediction_type`"),
        ("query_positions", "zero", "`model.query_positions`"),
        ("normalizer", NormalizerConfig(dim=8), "8 dimensions, but its `sonar_embed_dim` is 10"),
    ],
)
def test_configurations_that_cannot_be_honoured_are_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_two_tower_model(spoilt(path, value))


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("denoiser.scale_residual", 0.5, "no effect"),
        ("denoiser.final_norm_order_style", "post", "no effect"),
        ("denoiser.post_denoiser.dropout_p", 0.1, "no effect"),
        ("denoiser.pre_denoiser.layer_normalization_style", "unit", "no effect"),
        ("noise_scheduler.clip_sample", True, "matter of sampling"),
        ("noise_scheduler.set_alpha_to_one", False, "no effect"),
    ],
)
def test_options_that_are_dead_in_metas_code_are_named_in_the_log(
    path: str, value: Any, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        create_two_tower_model(spoilt(path, value))
    assert f"`{path}`" in caplog.text and word in caplog.text
    caplog.clear()
    create_two_tower_model(config_of("like the 1.6B"))
    assert not caplog.text


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("toy_two_tower_diffusion_lcm", 84_235_264),
        ("two_tower_diffusion_lcm_1_6B", 1_645_538_304),
        ("two_tower_diffusion_lcm_7B", 6_930_781_696),
        ("toy_base_lcm", 29_388_800),
        ("base_lcm_1_6B", 1_649_185_792),
    ],
)
def test_archs_have_the_parameters_of_metas(arch: str, count: int) -> None:
    base = "base" in arch
    config = get_config(get_dependency_resolver(), BaseConfig if base else TwoTowerConfig, arch)
    with torch.device("meta"):
        model = create_base_model(config) if base else create_two_tower_model(config)
    assert sum(p.numel() for p in model.parameters()) == count
