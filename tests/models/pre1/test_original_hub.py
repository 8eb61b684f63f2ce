"""The family that loads published weights for what they were: strictly, by revision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fairseq2.models import ModelFamily
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.original import OriginalPre1
from lexalcm.models.pre1.original_config import REVISIONS
from lexalcm.models.pre1.original_hub import (
    ORIGINAL_FAMILY,
    OriginalFamilyConfig,
    convert_original_state_dict,
    create_original_model,
    original_fields,
)

SIZES: dict[str, Any] = {
    "concept_dim": 6,
    "model_dim": 8,
    "latent_dim": 4,
    "num_context_layers": 1,
    "num_denoiser_layers": 1,
    "num_heads": 2,
    "ffn_dim": 10,
    "timestep_dim": 4,
    "num_train_steps": 8,
    "num_inference_steps": 4,
}


def published_state(config: OriginalFamilyConfig) -> dict[str, object]:
    model = create_original_model(config)
    return {**model.state_dict(), "alpha_bar_schedule": model.schedule.table.float()}


def test_archs_are_the_revisions_at_the_published_sizes() -> None:
    family = get_dependency_resolver().resolve(ModelFamily, key=ORIGINAL_FAMILY)
    assert family.get_archs() == set(REVISIONS)
    for revision, count in (("documented", 394_900_736), ("final", 394_919_168)):
        config = family.maybe_get_arch_config(revision)
        with torch.device("meta"):
            model = create_original_model(config)  # type: ignore[arg-type]
        assert sum(p.numel() for p in model.parameters()) == count
    assert family.kls is OriginalPre1 and not issubclass(family.kls, TwoTowerModel)


@pytest.mark.parametrize("revision", REVISIONS)
def test_wrappers_and_the_schedule_are_taken_off(revision: str) -> None:
    config = OriginalFamilyConfig(**SIZES, revision=revision)
    state = published_state(config)
    for form in (state, {"model": {f"module.{name}": value for name, value in state.items()}, "model_key": "model"}):
        found = convert_original_state_dict(dict(form), config)
        assert found.keys() == create_original_model(config).state_dict().keys()


def test_another_revision_is_told_apart() -> None:
    final = OriginalFamilyConfig(**SIZES)
    state = published_state(OriginalFamilyConfig(**SIZES, revision="documented"))
    with pytest.raises(CheckpointError, match="revision documented, but the configuration says `revision: final`"):
        convert_original_state_dict(state, final)
    with pytest.raises(ConfigError, match='Did you mean "final"'):
        create_original_model(OriginalFamilyConfig(**SIZES, revision="finall"))


def test_our_names_and_another_schedule_are_refused() -> None:
    config = OriginalFamilyConfig(**SIZES)
    with pytest.raises(CheckpointError, match="loads published names only"):
        ours = Pre1Config(model_dim=8, num_heads=2, ffn_dim=4, timestep_dim=4)
        convert_original_state_dict(dict(create_pre1_model(ours).state_dict()), config)
    state = published_state(config)
    with pytest.raises(CheckpointError, match="has 9 entries, but the configuration's 9 steps need 10"):
        convert_original_state_dict(state, OriginalFamilyConfig(**{**SIZES, "num_train_steps": 9}))
    state["alpha_bar_schedule"] = state["alpha_bar_schedule"] * 0.9  # type: ignore[operator]
    with pytest.raises(CheckpointError, match="not the cosine schedule"):
        convert_original_state_dict(state, config)


def test_a_published_configuration_becomes_the_familys() -> None:
    published = {
        "input_dim": 6,
        "d_model": 8,
        "d_latent": 4,
        "num_context_layers": 1,
        "num_denoiser_layers": 1,
        "n_heads": 2,
        "d_ff": 10,
        "AdaLN_Timestep_Embed_Dim": 4,
        "denoiser_iterations_pretrain": 8,
        "denoiser_iterations_inference": 4,
        "cfg_scale": 0.5,
    }
    config = OriginalFamilyConfig(**original_fields(published, "documented"))
    assert config == OriginalFamilyConfig(**SIZES, guidance_scale=0.5, revision="documented")
