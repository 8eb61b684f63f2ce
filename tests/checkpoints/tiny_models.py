"""Models of some thousand parameters, as files that others would have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Module

from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.pre1.original import OriginalPre1
from lexalcm.models.pre1.original_config import original_config
from lexalcm.models.two_tower.config import DenoiserConfig, TransformerConfig, TwoTowerConfig
from lexalcm.models.two_tower.factory import create_two_tower_model
from lexalcm.models.two_tower.model import TwoTowerDiffusionLCM

FIELDS = {
    "concept_dim": 8,
    "model_dim": 16,
    "num_context_layers": 1,
    "num_denoiser_layers": 1,
    "num_heads": 2,
    "ffn_dim": 24,
    "timestep_dim": 8,
}
"""Of Pre1."""

TOWER = {"num_layers": 1, "num_attn_heads": 2, "ffn_inner_dim": 12, "dropout_p": 0.0, "final_dropout_p": 0.0}

META_CONFIG: dict[str, Any] = {
    "sonar_embed_dim": 6,
    "sonar_normalizer_name": "house_normalizer",
    "max_seq_len": 16,
    "model_dim": 8,
    "context_encoder": {**TOWER, "pos_embedding_style": "rope"},
    "denoiser": {**TOWER, "timestep_embed_dim": 8},
    "noise_scheduler": {"num_diffusion_train_steps": 20},
}

PUBLISHED: dict[str, Any] = {
    "model_type": "lexa_lcm_pre1",
    "architectures": ["LexaLCM"],
    "input_dim": 6,
    "d_model": 8,
    "d_latent": 6,
    "num_context_layers": 1,
    "num_denoiser_layers": 2,
    "n_heads": 2,
    "d_ff": 10,
    "denoiser_iterations_pretrain": 8,
    "denoiser_iterations_inference": 4,
    "AdaLN_Timestep_Embed_Dim": 4,
    "cfg_scale": 0.0,
    "dropout_context": 0.05,
    "dropout_latent": 0.1,
    "dropout_denoiser": 0.15,
}


def meta_model() -> TwoTowerDiffusionLCM:
    """With random weights everywhere, and statistics of concepts."""
    torch.manual_seed(0)
    config = TwoTowerConfig(
        **{
            **META_CONFIG,
            "context_encoder": TransformerConfig(**META_CONFIG["context_encoder"]),
            "denoiser": DenoiserConfig(**META_CONFIG["denoiser"]),
            "noise_scheduler": type(TwoTowerConfig().noise_scheduler)(**META_CONFIG["noise_scheduler"]),
            "normalizer": NormalizerConfig(dim=6),
        }
    )
    model = create_two_tower_model(config)
    shake(model)
    model.set_normalizer(center=torch.randn(6), scale=torch.rand(6) + 0.5)
    return model.eval()


def shake(model: Module) -> None:
    """Gives every parameter a random value: those that start at 0 would hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))


def write_meta_step(
    folder: Path, model: Module, *, prefix: str = "", name: str = "on_the_fly_lcm", old_folder: str | None = None
) -> Path:
    """``model.pt`` and ``model_card.yaml``, as Meta's trainer leaves them in ``step_N``; returns the card.

    :param prefix: Before every tensor's name, as DDP puts ``module.`` there.
    :param old_folder: Where the run was when the card was written.
    """
    folder.mkdir(parents=True)
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({"model": state, "model_key": "model"}, folder / "model.pt")
    card = {
        "__source__": "inproc",
        "checkpoint": f"file://{old_folder or folder}/model.pt",
        "model_config": {**META_CONFIG, "model_type": "two_tower_diffusion_lcm"},
        "model_family": "two_tower_diffusion_lcm",
        "name": name,
    }
    (folder / "model_card.yaml").write_text(yaml.safe_dump(card))
    return folder / "model_card.yaml"


def write_normalizer(folder: Path, **card: object) -> Path:
    """The normalizer that :data:`META_CONFIG` names."""
    torch.save({"model": {"center": torch.zeros(6), "scale": torch.ones(6)}}, folder / "house_normalizer.pt")
    fields = {
        "name": "house_normalizer",
        "model_family": "sonar_normalizer",
        "model_config": {"dim": 6},
        "checkpoint": "house_normalizer.pt",
        **card,
    }
    (folder / "house_normalizer.yaml").write_text(yaml.safe_dump(fields))
    return folder / "house_normalizer.yaml"


def write_published(folder: Path, revision: str = "final", **fields: object) -> OriginalPre1:
    """``config.json`` and ``model.safetensors`` of LexaLCM-Pre1, with random weights; returns what they compute."""
    torch.manual_seed(0)
    published = {**PUBLISHED, **fields}
    model = OriginalPre1(original_config(published), revision).eval()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(published))
    tensors = {**model.state_dict(), "alpha_bar_schedule": model.schedule.table.float()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return model


@torch.no_grad()
def denoised(model: Module) -> Tensor:
    """What a two-tower model makes of two fixed documents."""
    assert isinstance(model, TwoTowerModel)
    generator = torch.Generator().manual_seed(1)
    concepts, noisy = (torch.randn(7, 6, generator=generator) for _ in range(2))
    layout = DocumentLayout([4, 3])
    timesteps = torch.full((7,), 5)
    return model(model.normalize(concepts), noisy, timesteps, layout)


def equal(first: Module, second: Module) -> bool:
    """Whether all parameters and buffers are the same."""
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
