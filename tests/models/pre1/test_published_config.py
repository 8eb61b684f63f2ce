"""config.json of the published checkpoints, both ways."""

from __future__ import annotations

from typing import Any

import pytest

from lexalcm.diffusion.schedule import ScheduleConfig
from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.original_config import original_config
from lexalcm.models.pre1.published_config import from_published_config, to_published_config


@pytest.mark.parametrize("norm_weights", [False, True])
def test_round_trip_is_the_identity(norm_weights: bool) -> None:
    config = Pre1Config(
        concept_dim=6,
        model_dim=8,
        num_heads=2,
        ffn_dim=10,
        timestep_dim=4,
        bridge_dropout_p=0.2,
        denoiser_norm_weights=norm_weights,
        schedule=ScheduleConfig(num_steps=30),
    )
    published = to_published_config(config)
    original_config(published)  # the published code's fields, all of them
    revision = "final" if norm_weights else "documented"
    assert from_published_config(published, revision, keep_schedule=True) == config
    assert from_published_config(published, revision, keep_schedule=False).schedule == ScheduleConfig()


def test_the_default_is_the_published_one_but_for_dropout_and_timesteps() -> None:
    published = to_published_config(Pre1Config())
    assert (published["d_model"], published["d_latent"], published["n_heads"], published["d_ff"]) == (
        1536,
        1024,
        16,
        6144,
    )
    assert published["denoiser_iterations_inference"] == 40
    assert to_published_config(Pre1Config(schedule=ScheduleConfig(num_steps=8)))["denoiser_iterations_inference"] == 8


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"prediction_type": "v_prediction"}, "no place for `prediction_type`: 'v_prediction'; it means 'sample'"),
        ({"output_form": "residual"}, "`output_form`"),
        ({"schedule": ScheduleConfig(kind="linear")}, "`schedule.kind`: 'linear'"),
        ({"rope_theta": 500.0}, "`rope_theta`"),
        ({"linear_context": 1}, "`linear_context`"),
    ],
)
def test_what_would_be_read_as_another_model_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        to_published_config(Pre1Config(**fields))


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        ({"d_latent": 5}, ConfigError, r"`d_latent` 5\) is not as wide as a concept \(`input_dim` 6"),
        ({"n_heads": 8}, ConfigError, "twice `num_heads`"),
        ({"dropout_context": 1.5}, CheckpointError, r"`dropout_context` must be a number in \[0, 1\), but is 1.5"),
        ({"d_ff": "x"}, CheckpointError, "`d_ff` must be a whole number"),
    ],
)
def test_what_the_family_cannot_hold_is_told_from_what_is_wrong(
    fields: dict[str, Any], kind: type[Exception], told: str
) -> None:
    published = to_published_config(Pre1Config(concept_dim=6, model_dim=8, num_heads=2, ffn_dim=10, timestep_dim=4))
    with pytest.raises(kind, match=told):
        from_published_config({**published, **fields}, "final", keep_schedule=False)
