"""The recipe of ``fairseq2 lcm train``: assembles model, data, objective and optimizer, and trains."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import final

import torch
from fairseq2.checkpoint import CheckpointDir
from fairseq2.io import TensorFileLoader
from fairseq2.logging import log
from fairseq2.recipe.base import Recipe, RecipeContext
from fairseq2.task import Task
from torch.nn import Module
from typing_extensions import override

from lexalcm.checkpoints.export import export_run
from lexalcm.checkpoints.normalizer_file import read_normalizer_file
from lexalcm.checkpoints.resolve import saved_scores
from lexalcm.checkpoints.special_concepts import SPECIAL_FILE, SpecialConceptsOfModel, save_special_concepts
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ReadingConfig
from lexalcm.data.special_concepts import load_special_concepts
from lexalcm.errors import ConfigError
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.normalizer.model import ConceptNormalizer
from lexalcm.recipes.checkpoint_files import RestrictedLoader
from lexalcm.recipes.components import OBJECTIVES, SAMPLERS, choose_component
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.recipes.dataset import open_dataset
from lexalcm.recipes.disk_space import check_disk_space, checkpoint_bytes
from lexalcm.recipes.dry_run import DryRun, dry_run_documents, dry_run_reading
from lexalcm.recipes.mixed_precision import is_asked_for, is_imitated
from lexalcm.recipes.normalizer import (
    check_statistics,
    fit_statistics_for_run,
    no_normalizer,
    statistics_of_card,
)
from lexalcm.recipes.ranks import check_is_shared, on_first_rank
from lexalcm.recipes.reading import reading_for_model
from lexalcm.recipes.resume import step_to_export
from lexalcm.recipes.skipped_steps import SkippedSteps
from lexalcm.recipes.stopping import StopAtStep, StopSignals
from lexalcm.recipes.takeover import take_over
from lexalcm.recipes.task import LcmTrainTask
from lexalcm.recipes.validation import create_validation
from lexalcm.training.ema import ExponentialMovingAverage
from lexalcm.training.finite_steps import FiniteSteps
from lexalcm.training.train_unit import LcmTrainUnit


@final
class LcmTrainRecipe(Recipe):
    """Trains any two-tower family on any concept dataset."""

    def __init__(self, *, dry_run: bool = False) -> None:
        """:param dry_run: Build everything and step twice, instead of training."""
        self._dry_run = dry_run
        self._dataset: ConceptParquetDataset | None = None

    @property
    @override
    def config_kls(self) -> type[object]:
        return LcmTrainConfig

    @override
    def setup_model(self, context: RecipeContext, model: Module, newly_initialized: bool) -> Module:
        if not isinstance(model, TwoTowerModel):
            raise ConfigError(
                f"`model` must name a two-tower family, but {type(model).__name__} does not implement its interface "
                f"(lexalcm.models.interface)."
            )
        inert = model.inert_parameters()
        for name, parameter in model.named_parameters():
            # fairseq2 makes every parameter trainable after the factory has run. Weight decay would shrink these.
            if name in inert:
                parameter.requires_grad_(False)
        # A resumed run's statistics come with its checkpoint. A model that was trained has its own, and keeps them; a
        # fresh one that was written down, or one published without, has none yet.
        is_resumed = context.get_checkpoint_manager().has_checkpoint(exclude_model_only=True)
        if context.gangs.dp.rank == 0 and (newly_initialized or (not is_resumed and _normalizes_nothing(model))):
            self._set_normalizer(context, model)
        return model

    def _set_normalizer(self, context: RecipeContext, model: TwoTowerModel) -> None:
        section = context.get_config_as(LcmTrainConfig).normalizer
        if section.identity:
            if model.normalizer_config.clip_proba is not None:
                raise ConfigError(
                    "`normalizer.identity` leaves the bounds unset that the model clips to. Name or fit its statistics."
                )
            log.info("Not normalizing, as `normalizer.identity` asks.")
            return
        name = section.name if section.name is not None else model.normalizer_name
        if section.path is not None:
            statistics, _ = read_normalizer_file(Path(section.path), model.concept_dim)
            log.info("Normalizing with {}.", section.path)
        elif section.fit is not None:
            wanted = model.normalizer_config
            statistics = fit_statistics_for_run(
                context,
                self._open_dataset(context),
                model.concept_dim,
                with_fft=wanted.with_fft,
                clip_proba=wanted.clip_proba,
            )
        elif name is not None:
            statistics = statistics_of_card(name, model.concept_dim)
            log.info("Normalizing with the card {}.", name)
        else:
            raise no_normalizer()
        check_statistics(statistics, model.normalizer_config)
        model.set_normalizer(**statistics.tensors())

    def _open_dataset(self, context: RecipeContext) -> ConceptParquetDataset:
        if self._dataset is None:
            self._dataset = open_dataset(context.resolver, context.get_config_as(LcmTrainConfig).dataset)
        return self._dataset

    @override
    def create_task(self, context: RecipeContext) -> Task:
        config = context.get_config_as(LcmTrainConfig)
        gangs = context.gangs
        checkpoints = _checkpoint_folder(context)
        if not self._dry_run:
            check_is_shared(checkpoints, gangs.root)
        loader = context.resolver.resolve(TensorFileLoader)
        assert isinstance(loader, RestrictedLoader)
        take_over(context.get_checkpoint_manager(), loader, checkpoints, gangs, seed=config.common.seed)
        # A misspelt field is told of before the model is built.
        chosen = choose_component(context.resolver, config.objective, OBJECTIVES, where="objective")
        sampler = choose_component(context.resolver, config.validation.sampler, SAMPLERS, where="validation.sampler")
        dp_model = context.get_data_parallel_model()
        model = context.get_model_as(TwoTowerModel)
        objective = chosen.create()
        signals = StopSignals()
        stop = StopAtStep(signals, gangs.dp)
        dataset = self._open_dataset(context)
        reading = reading_for_model(config.dataset.reading, model, dataset)
        reading = replace(reading, hold_out_every=config.dataset.hold_out_every)
        reader = dataset.create_reader(
            config.dataset.train_split,
            dry_run_reading(reading, gangs.device) if self._dry_run else reading,
            rank=gangs.dp.rank,
            world_size=gangs.dp.size,
            num_accumulate=config.trainer.grad_accumulation.num_batches,
            concept_dim=model.concept_dim,
            pin_memory=gangs.device.type == "cuda",
            any_rank=stop.any_rank,
        )
        unit = LcmTrainUnit(dp_model, model, objective, gangs.dp)
        optimizer = context.get_optimizer()
        ema = None
        if config.ema.decay is not None:
            ema = ExponentialMovingAverage(model, optimizer, decay=config.ema.decay)
        most = config.validation.max_documents
        valid_units, valid_readers = create_validation(
            context,
            dataset,
            dp_model,
            model,
            objective,
            ema,
            sampler=sampler.create(),
            max_documents=dry_run_documents(most, gangs.device) if self._dry_run else most,
            reading=reading,
        )
        if self._dry_run:
            return DryRun(
                config,
                gangs,
                model,
                unit,
                reader,
                optimizer,
                valid_units,
                valid_readers,
                describe_data=dataset.describe,
                num_documents=dataset.num_rows(config.dataset.train_split),
            )
        needed = checkpoint_bytes(model, with_ema=ema is not None)
        on_first_rank(gangs.root, lambda: check_disk_space(checkpoints, needed, config.regime))
        skipped = SkippedSteps(unit, gangs.dp, max_in_a_row=config.trainer.max_nonfinite_steps, checkpoints=checkpoints)
        FiniteSteps(dp_model, optimizer, on_skip=skipped)
        stop.watch(optimizer)
        precision = config.trainer.mixed_precision
        if is_asked_for(precision) and is_imitated(gangs.device):
            log.warning(
                "This CPU can only imitate {}, far slower than float32: set `trainer.mixed_precision.mode: off`.",
                precision.dtype,
            )
        trainer = context.create_trainer(unit, reader, valid_units, valid_readers)
        manager = context.get_checkpoint_manager()
        task = partial(LcmTrainTask, trainer, manager, signals, stop, checkpoints=checkpoints)
        if gangs.root.rank != 0:
            return task()
        _keep_special_concepts(context.output_dir, reading, model.concept_dim)
        # The trainer closes the gangs, which then tell neither ranks nor shards.
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        return task(on_end=lambda: self._export(context, shapes))

    def _export(self, context: RecipeContext, shapes: dict[str, torch.Size]) -> None:
        """Writes the run's model from the files of its best checkpoint, or of its last one."""
        checkpoints = _checkpoint_folder(context)
        scores = saved_scores(checkpoints)
        step = step_to_export(checkpoints)
        if step is None:
            log.warning("The run saved no checkpoint, so there is no model to write.")
            return
        card_file = export_run(context.output_dir, step, checkpoints=checkpoints, shapes=shapes)
        metric = context.get_config_as(LcmTrainConfig).regime.score_metric
        best = f", the best of {len(scores)} by {metric}," if scores else ""
        log.info("The model of step {}{} is ready to use: {}", step, best, card_file)


def _keep_special_concepts(run_folder: Path, reading: ReadingConfig, concept_dim: int) -> None:
    """Puts the file that names what stands around documents into the run's folder: whoever generates needs it too."""
    if reading.special_concepts is None or not (reading.prefix or reading.suffix or reading.target_suffix):
        return
    special = load_special_concepts(reading.special_concepts)
    vectors = {name: torch.from_numpy(special.get(name, concept_dim)) for name in special.names}
    kept = SpecialConceptsOfModel(
        vectors,
        prefix=reading.prefix,
        suffix=reading.suffix,
        target_suffix=reading.target_suffix,
        facts=special.facts,
    )
    save_special_concepts(run_folder / SPECIAL_FILE, kept)


def _normalizes_nothing(model: TwoTowerModel) -> bool:
    normalizers = [module for module in model.modules() if isinstance(module, ConceptNormalizer)]
    return bool(normalizers) and all(normalizer.is_identity for normalizer in normalizers)


def _checkpoint_folder(context: RecipeContext) -> Path:
    path = context.resolver.resolve(CheckpointDir).path
    return path if path is not None else context.output_dir / "checkpoints"
