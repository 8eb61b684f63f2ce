"""The configuration of published LexaLCM-Pre1 checkpoints (``config.json``), both ways.

The published code has no place for what makes a Pre1 model of ours another function: the kind of its noise schedule,
what it predicts and in which form, the base of its rotary frequencies, a linear context path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.original_config import PUBLISHED_TYPE, REVISIONS, original_config

_DROPOUTS: Final = {
    "dropout_context": "context_dropout_p",
    "dropout_latent": "bridge_dropout_p",
    "dropout_denoiser": "denoiser_dropout_p",
}
"""Published names, and ours."""

_INFERENCE_STEPS: Final = 40
"""Of the published configuration."""


def from_published_config(published: Mapping[str, object], revision: str, *, keep_schedule: bool) -> Pre1Config:
    """The configuration of the family that trains and generates.

    :param keep_schedule: Take the number of timesteps over. The published objective trained one timestep alone, so that
        its weights get the family's own schedule.
    :raises CheckpointError: A field is missing, unknown or impossible.
    :raises ConfigError: The family cannot hold a model of these sizes.
    """
    sizes = original_config(published)
    if sizes.latent_dim != sizes.concept_dim:
        raise ConfigError(
            f"the latent between the towers (`d_latent` {sizes.latent_dim}) is not as wide as a concept (`input_dim` "
            f"{sizes.concept_dim})."
        )
    dropouts = {
        ours: _probability(published[theirs], theirs) for theirs, ours in _DROPOUTS.items() if theirs in published
    }
    config = Pre1Config(
        concept_dim=sizes.concept_dim,
        model_dim=sizes.model_dim,
        num_context_layers=sizes.num_context_layers,
        num_denoiser_layers=sizes.num_denoiser_layers,
        num_heads=sizes.num_heads,
        ffn_dim=sizes.ffn_dim,
        timestep_dim=sizes.timestep_dim,
        denoiser_norm_weights=REVISIONS[revision].denoiser_norms,
        **dropouts,
    )
    if keep_schedule:
        config.schedule.num_steps = sizes.num_train_steps
    config.check()
    return config


def to_published_config(config: Pre1Config) -> dict[str, Any]:
    """The fields of ``config.json`` for a model of ours.

    :raises ConfigError: The published layout has no place for a field's value.
    """
    default, schedule = Pre1Config(), config.schedule
    for name, value, only in (
        ("linear_context", config.linear_context, default.linear_context),
        ("schedule.kind", schedule.kind, default.schedule.kind),
        ("prediction_type", config.prediction_type, default.prediction_type),
        ("output_form", config.output_form, default.output_form),
        ("rope_theta", config.rope_theta, default.rope_theta),
    ):
        if value != only:
            raise ConfigError(
                f"The published layout of LexaLCM-Pre1 has no place for `{name}`: {value!r}; it means {only!r}, and "
                f"would be read as another model.\nThe format safetensors keeps everything."
            )
    return {
        "model_type": PUBLISHED_TYPE,
        "architectures": ["LexaLCM"],
        "input_dim": config.concept_dim,
        "d_model": config.model_dim,
        "d_latent": config.concept_dim,
        "num_context_layers": config.num_context_layers,
        "num_denoiser_layers": config.num_denoiser_layers,
        "n_heads": config.num_heads,
        "d_ff": config.ffn_dim,
        **{theirs: getattr(config, ours) for theirs, ours in _DROPOUTS.items()},
        "denoiser_iterations_pretrain": schedule.num_steps,
        "denoiser_iterations_inference": min(_INFERENCE_STEPS, schedule.num_steps),
        "AdaLN_Timestep_Embed_Dim": config.timestep_dim,
        "cfg_scale": 0.0,
    }


def _probability(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise CheckpointError(f"config.json: `{name}` must be a number in [0, 1), but is {value!r}.")
    return float(value)
