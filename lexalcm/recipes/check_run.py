"""Combinations in a recipe that cannot work, refused before anything is built."""

from __future__ import annotations

import torch
from fairseq2.recipe.config import CosineAnnealingLRConfig

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.models.pre1.config import PRE1_FAMILY
from lexalcm.pipelines.fit_rule import FIT_METHODS
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.recipes.normalizer import no_normalizer
from lexalcm.training.meta_lr_schedule import MetaLRConfig


def check_train_config(config: LcmTrainConfig) -> None:
    """
    :raises ConfigError: Names the fields, and what to write instead.
    """
    _check_model(config)
    _check_regime(config)
    _check_trainer(config)
    _check_dataset(config)
    _check_normalizer(config)
    if config.ema.decay is not None and not 0.0 < config.ema.decay < 1.0:
        raise ConfigError(f"`ema.decay` must be between 0 and 1 (say 0.999), or null, but is {config.ema.decay}.")
    if config.validation.num_samples == 1:
        raise ConfigError("`validation.num_samples` must be 0 or at least 2: one sample has no spread to score.")


def _check_model(config: LcmTrainConfig) -> None:
    model = config.model
    if model.name is None and model.path is None and model.family is None:
        raise ConfigError(
            "`model.name` must be set to a trained model: a card, a card file, or the folder of a run.\n"
            "Or set `model.family` and `model.arch` to begin with a new one."
        )


def _check_regime(config: LcmTrainConfig) -> None:
    regime = config.regime
    if regime.num_data_epochs is not None:
        raise ConfigError(
            "`regime.num_data_epochs` is not supported: fairseq2 0.8 calls a run that was killed in its last epoch finished.\n"
            "Set `regime.num_steps`; a dry run prints how many steps one epoch has."
        )
    if regime.num_steps is None:
        raise ConfigError("`regime.num_steps` must be set.")
    scheduler = config.lr_scheduler.config
    if isinstance(scheduler, CosineAnnealingLRConfig) and scheduler.num_warmup_steps >= regime.num_steps:
        raise ConfigError(
            f"`lr_scheduler.config.num_warmup_steps` ({scheduler.num_warmup_steps}) must be below `regime.num_steps` "
            f"({regime.num_steps}).\nThe schedule `lcm_warmup_share` takes the warm-up as a share of the run."
        )
    if isinstance(scheduler, MetaLRConfig):
        scheduler.check(regime.num_steps)
    if regime.keep_best_n_checkpoints is not None and regime.score_metric is None:
        raise ConfigError("`regime.keep_best_n_checkpoints` needs `regime.score_metric`, say retrieval_at_10_unseen.")
    if regime.score_metric is not None and config.dataset.valid_split is None and config.dataset.hold_out_every is None:
        raise ConfigError("`regime.score_metric` needs a validation split, but `dataset.valid_split` is null.")
    if regime.save_model_only:
        raise ConfigError(
            "`regime.save_model_only` is not supported: such a checkpoint has no averages, and no run can go on from it.\n"
            "Keep few with `regime.keep_last_n_checkpoints`; a finished run's `model/` holds the weights alone."
        )
    if regime.export_hugging_face:
        raise ConfigError(
            "`regime.export_hugging_face` is not supported; a finished run has its weights as safetensors."
        )


def _check_trainer(config: LcmTrainConfig) -> None:
    trainer = config.trainer
    if trainer.mixed_precision.mode == "static":
        raise ConfigError(
            "`trainer.mixed_precision.mode: static` would cast the parts of the model that must stay in float32.\n"
            "Use `auto` (autocast), or `off` for float32 throughout."
        )
    precision = trainer.mixed_precision
    if torch.float16 in (config.model.dtype, precision.dtype if precision.mode != "off" else None):
        raise ConfigError(
            "Training in float16 is not supported: its losses overflow. Set `trainer.mixed_precision.dtype: bfloat16`, and "
            "leave `model.dtype` at float32."
        )
    if trainer.max_nonfinite_steps < 1:
        raise ConfigError(f"`trainer.max_nonfinite_steps` must be at least 1, but is {trainer.max_nonfinite_steps}.")
    if config.gang.tensor_parallel_size != 1:
        raise ConfigError("`gang.tensor_parallel_size` must be 1: these models shard over data, not over tensors.")
    if trainer.data_parallelism == "fsdp" and trainer.fsdp.version != "v2":
        raise ConfigError("`trainer.fsdp.version` must be v2: checkpoints and averages of v1 have another form.")
    if trainer.data_parallelism == "fsdp" and trainer.fsdp.granularity == "stack":
        raise ConfigError("`trainer.fsdp.granularity` must be `layer` or `model`.")


def _check_dataset(config: LcmTrainConfig) -> None:
    dataset = config.dataset
    if dataset.reading.hold_out_every is not None:
        raise ConfigError(
            "Set `dataset.hold_out_every`, not the field of `dataset.reading`: validation needs to know it too."
        )
    given = [name for name in ("name", "path", "sources") if getattr(dataset, name)]
    if len(given) != 1:
        found = " and ".join(f"`dataset.{name}`" for name in given) or "none"
        raise ConfigError(
            f"Exactly one of `dataset.path`, `dataset.sources` and `dataset.name` must be set, but {found} is.\n"
            f"Say on the command line: --config dataset.path=/data/wiki"
        )


def _check_normalizer(config: LcmTrainConfig) -> None:
    normalizer = config.normalizer
    given = [name for name in ("path", "name", "fit") if getattr(normalizer, name)]
    given += ["identity"] if normalizer.identity else []
    if len(given) > 1:
        raise ConfigError("Only one of " + ", ".join(f"`normalizer.{name}`" for name in given) + " can be set.")
    if not given and config.model.family == PRE1_FAMILY and config.model.name is None and config.model.path is None:
        # Configurations of other families may name their own, which is seen when the model is there.
        raise no_normalizer()
    if normalizer.fit is not None and normalizer.fit not in FIT_METHODS:
        raise ConfigError(f"`normalizer.fit`: {unknown_name('method of fitting', str(normalizer.fit), FIT_METHODS)}")
