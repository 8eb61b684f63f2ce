"""Counts, FLOPs and the refusals of a Pre1 configuration."""

from __future__ import annotations

import pytest
import torch

from lexalcm.errors import ConfigError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (Pre1Config(), 394_900_736),
        (Pre1Config(denoiser_norm_weights=True), 394_919_168),
        (Pre1Config(concept_dim=384), 390_062_336),
    ],
)
def test_parameter_counts_are_the_documented_ones(config: Pre1Config, count: int) -> None:
    with torch.device("meta"):
        model = create_pre1_model(config)
    assert sum(p.numel() for p in model.parameters()) == count
    assert config.num_parameters() == count


def test_the_count_includes_the_linear_path() -> None:
    config = Pre1Config(concept_dim=16, model_dim=24, num_heads=2, ffn_dim=32, linear_context=4)
    assert config.num_parameters() == sum(p.numel() for p in create_pre1_model(config).parameters())


def test_flops_are_six_a_weight_that_a_position_meets() -> None:
    config = Pre1Config()
    # 48 M^2 in the contextualizer and 72 M^2 for the denoiser: 120 M^2 weights, 2 FLOPs each, three times.
    lower = 6 * 120 * config.model_dim**2
    assert lower < config.flops_per_concept(128) < 1.06 * lower


def test_more_noise_draws_repeat_the_denoiser_alone() -> None:
    config = Pre1Config()
    one, two = (config.flops_per_concept(64, noise_draws=k) for k in (1, 2))
    assert 1.5 * one < two < 1.7 * one


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model_dim": 20, "num_heads": 3}, "model_dim"),
        ({"num_denoiser_layers": 0}, "num_denoiser_layers"),
        ({"timestep_dim": 7}, "timestep_dim"),
        ({"bridge_dropout_p": 1.0}, "bridge_dropout_p"),
        ({"linear_context": -1}, "linear_context"),
        ({"prediction_type": "epsilon", "output_form": "residual"}, "output_form"),
    ],
)
def test_impossible_fields_are_refused_by_name(fields: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        create_pre1_model(Pre1Config(**fields))
