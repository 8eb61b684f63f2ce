"""Published names, both ways and strictly."""

from __future__ import annotations

import pytest
import torch

from lexalcm.errors import CheckpointError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.interop import convert_pre1_state_dict, from_published, is_published, to_published


def small(**fields: object) -> Pre1Config:
    return Pre1Config(
        concept_dim=8,
        model_dim=12,
        num_context_layers=2,
        num_denoiser_layers=2,
        num_heads=2,
        ffn_dim=10,
        timestep_dim=4,
        **fields,
    )


@pytest.mark.parametrize("norm_weights", [False, True])
def test_round_trip_is_the_identity(norm_weights: bool) -> None:
    config = small(denoiser_norm_weights=norm_weights)
    ours = create_pre1_model(config).state_dict()
    back = from_published(to_published(ours, config), config)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def test_gate_comes_first_in_the_joined_matrix() -> None:
    config = small()
    ours = create_pre1_model(config).state_dict()
    joined = to_published(ours, config)["DenoiserTower.layers.0.mlp.linear1.weight"]
    assert torch.equal(joined[:10], ours["denoiser.layers.0.ffn.gate_proj.weight"])


def test_missing_and_unexpected_keys_are_listed() -> None:
    config = small()
    published = to_published(create_pre1_model(config).state_dict(), config)
    del published["PostNet_D_Down.proj.bias"]
    published["Surplus.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"(?s)missing.*PostNet_D_Down\.proj\.bias.*unexpected.*Surplus\.weight"):
        from_published(published, config)


def test_the_schedule_buffer_is_checked_and_may_be_absent() -> None:
    config = small()
    published = to_published(create_pre1_model(config).state_dict(), config)
    assert published["alpha_bar_schedule"].shape == (101,)
    published["alpha_bar_schedule"] = published["alpha_bar_schedule"] * 0.9
    with pytest.raises(CheckpointError, match="cosine schedule"):
        from_published(published, config)
    del published["alpha_bar_schedule"]
    from_published(published, config)


def test_a_linear_context_path_has_no_published_name() -> None:
    config = small(linear_context=2)
    with pytest.raises(CheckpointError, match=r"linear_context\.proj\.weight"):
        to_published(create_pre1_model(config).state_dict(), config)


def test_the_loader_takes_ours_published_and_wrapped() -> None:
    config = small()
    ours = create_pre1_model(config).state_dict()
    assert not is_published(ours)
    for variant in (ours, to_published(ours, config), {"model": {f"module.{k}": v for k, v in ours.items()}}):
        assert convert_pre1_state_dict(dict(variant), config).keys() == ours.keys()


def test_statistics_travel_under_our_names_and_only_if_there_are_any() -> None:
    config = small()
    model = create_pre1_model(config)
    assert not any(name.startswith("normalizer") for name in to_published(model.state_dict(), config))
    model.set_normalizer(center=torch.ones(8), scale=torch.full((8,), 2.0))
    published = to_published(model.state_dict(), config)
    back = from_published(published, config)
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    del published["normalizer.scale"]
    with pytest.raises(CheckpointError, match=r"missing keys \(1\): normalizer\.scale"):
        from_published(published, config)


@pytest.mark.parametrize(("norm_weights", "revision"), [(False, "documented"), (True, "final")])
def test_the_other_revision_is_named(norm_weights: bool, revision: str) -> None:
    config = small(denoiser_norm_weights=norm_weights)
    published = to_published(create_pre1_model(config).state_dict(), config)
    with pytest.raises(
        CheckpointError, match=f"`{revision}`, which `denoiser_norm_weights: {str(norm_weights).lower()}`"
    ):
        from_published(published, small(denoiser_norm_weights=not norm_weights))
