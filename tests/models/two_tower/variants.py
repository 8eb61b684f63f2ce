"""Small two-tower models that between them use every option."""

from __future__ import annotations

from typing import Any

import torch

from lexalcm.models.layers.transformer_config import FrontendConfig, ProjectionConfig, TransformerConfig
from lexalcm.models.two_tower.config import DenoiserConfig, NoiseSchedulerConfig, TwoTowerConfig
from lexalcm.models.two_tower.factory import create_two_tower_model
from lexalcm.models.two_tower.model import TwoTowerDiffusionLCM

NO_DROPOUT = {"dropout_p": 0.0, "final_dropout_p": 0.0}

LIKE_LARGE = {
    "num_attn_heads": 2,
    "ffn_inner_dim": 48,
    "use_swiglu": True,
    "layer_normalization_style": "rms",
    "mha_output_proj_bias": True,
    **NO_DROPOUT,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "like the 1.6B": {
        "context_encoder": {"pos_embedding_style": "rope", **LIKE_LARGE},
        "denoiser": LIKE_LARGE,
    },
    "defaults": {
        "context_encoder": {"num_attn_heads": 4, "ffn_inner_dim": 40, **NO_DROPOUT},
        "denoiser": {"num_attn_heads": 3, "ffn_inner_dim": 40, **NO_DROPOUT},
    },
    "normformer, norms of queries and keys, weight norm, sine and learned positions": {
        "frontend": {"weight_normalization": True, "pre_linear_bias": False, "pre_linear_init_fn": "sonar"},
        "context_encoder": {
            "num_attn_heads": 2,
            "ffn_inner_dim": 40,
            "ffn_inner_activation_name": "gelu",
            "pos_embedding_style": "sine",
            "layer_normalization_style": "fp32",
            "norm_order_style": "normformer",
            "final_norm_order_style": "post",
            "enable_qk_layernorm": True,
            "mha_qkv_weight_normalization": True,
            "mha_output_weight_normalization": True,
            **NO_DROPOUT,
        },
        "denoiser": {
            "num_attn_heads": 2,
            "ffn_inner_dim": 40,
            "ffn_inner_activation_name": "prelu",
            "pos_embedding_style": "learned",
            "norm_order_style": "normformer",
            "enable_qk_layernorm": True,
            "mha_qkv_weight_normalization": True,
            "pre_denoiser": {"weight_normalization": True, "activation_name": "tanh"},
            "post_denoiser": {"linear_bias": False, "activation_name": "prelu"},
            **NO_DROPOUT,
        },
    },
    "post-norm with a scaled residual, rotary positions in both": {
        "context_encoder": {
            "num_attn_heads": 2,
            "ffn_inner_dim": 40,
            "pos_embedding_style": "rope",
            "rope_theta": 500.0,
            "layer_normalization_style": "unit",
            "norm_order_style": "post",
            "scale_residual": 0.7,
            **NO_DROPOUT,
        },
        "denoiser": {
            "num_attn_heads": 2,
            "ffn_inner_dim": 40,
            "ffn_inner_activation_name": "softsign",
            "pos_embedding_style": "rope",
            "layer_normalization_style": "unit",
            "mha_output_proj_bias": True,
            **NO_DROPOUT,
        },
    },
}


def config_of(variant: str, **fields: Any) -> TwoTowerConfig:
    sections = VARIANTS[variant]
    denoiser = dict(sections["denoiser"])
    for name in ("pre_denoiser", "post_denoiser"):
        denoiser[name] = ProjectionConfig(**denoiser.get(name, {}))
    return TwoTowerConfig(
        sonar_embed_dim=10,
        model_dim=24,
        max_seq_len=200,
        frontend=FrontendConfig(**sections.get("frontend", {})),
        context_encoder=TransformerConfig(**sections["context_encoder"]),
        denoiser=DenoiserConfig(timestep_embed_dim=24, **denoiser),
        noise_scheduler=NoiseSchedulerConfig(num_diffusion_train_steps=50),
        **fields,
    )


def model_of(variant: str, **fields: Any) -> TwoTowerDiffusionLCM:
    """In float64, with every weight random: fresh modulators are zero and would hide mistakes."""
    torch.manual_seed(0)
    model = create_two_tower_model(config_of(variant, **fields)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model
