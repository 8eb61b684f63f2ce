"""Small models of every family, with random weights, for tests of generation."""

from __future__ import annotations

import torch

from lexalcm.diffusion.schedule import ScheduleConfig
from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.base_lcm.factory import create_base_model
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.transformer_config import TransformerConfig
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.two_tower.config import DenoiserConfig, NoiseSchedulerConfig, TwoTowerConfig
from lexalcm.models.two_tower.factory import create_two_tower_model

DIM = 8

FAMILIES = ("pre1", "two_tower", "base_lcm")

_ROTARY_TOWER = {"num_layers": 2, "num_attn_heads": 2, "pos_embedding_style": "rope", "ffn_inner_dim": 24}


def tiny_model(family: str, **fields: object) -> TwoTowerModel:
    torch.manual_seed(0)
    made = _MAKERS[family](**fields).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    made.set_normalizer(center=torch.randn(DIM), scale=torch.rand(DIM) + 0.5)
    return made


def _pre1(**fields: object) -> TwoTowerModel:
    config = Pre1Config(
        concept_dim=DIM,
        model_dim=16,
        num_context_layers=2,
        num_denoiser_layers=2,
        num_heads=2,
        ffn_dim=24,
        timestep_dim=8,
        linear_context=2,
        schedule=ScheduleConfig(kind="cosine", num_steps=20),
    )
    return create_pre1_model(_with(config, fields))


def _two_tower(**fields: object) -> TwoTowerModel:
    """With rotary positions in both towers."""
    config = TwoTowerConfig(
        sonar_embed_dim=DIM,
        model_dim=16,
        max_seq_len=24,
        sonar_normalizer_name=None,
        context_encoder=TransformerConfig(**_ROTARY_TOWER),
        denoiser=denoiser_config(),
        noise_scheduler=NoiseSchedulerConfig(num_diffusion_train_steps=20),
    )
    config.normalizer = NormalizerConfig(dim=DIM)
    return create_two_tower_model(_with(config, fields))


def denoiser_config(**fields: object) -> DenoiserConfig:
    return DenoiserConfig(**{**_ROTARY_TOWER, "timestep_embed_dim": 16, **fields})  # type: ignore[arg-type]


def _base(**fields: object) -> TwoTowerModel:
    config = BaseConfig(
        sonar_embed_dim=DIM,
        model_dim=16,
        max_seq_len=24,
        sonar_normalizer_name=None,
        lcm=TransformerConfig(num_layers=2, num_attn_heads=2, ffn_inner_dim=24, pos_embedding_style="learned"),
    )
    config.normalizer = NormalizerConfig(dim=DIM)
    return create_base_model(_with(config, fields))


def _with(config: object, fields: dict[str, object]) -> object:
    for name, value in fields.items():
        assert hasattr(config, name)
        setattr(config, name, value)
    return config


_MAKERS = {"pre1": _pre1, "two_tower": _two_tower, "base_lcm": _base}
