"""Validation during training: the loss, retrieval and the energy score on a held-out split.

Shapes: N concepts of a group's documents, C dimensions, S samples.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import final

import numpy as np
import torch
from fairseq2.datasets import DataReader
from fairseq2.evaluator import EvalUnit
from fairseq2.metrics import MetricBag
from fairseq2.metrics.aggregation import Mean
from fairseq2.recipe.base import RecipeContext
from torch.nn import Module
from typing_extensions import Self, override

from lexalcm.data.batch import ConceptBatch, collate_documents
from lexalcm.data.dataset import ConceptParquetDataset, Document
from lexalcm.data.sources import ReadingConfig
from lexalcm.diffusion.objective import TrainingObjective
from lexalcm.diffusion.samplers import Sampler
from lexalcm.diffusion.scores import energy_score
from lexalcm.evaluation.predict import one_pass, samples
from lexalcm.evaluation.protocol import DOCUMENTS_PER_GROUP, MAX_CONCEPTS, retrieval_figures
from lexalcm.models.interface import TwoTowerModel
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.training.ema import ExponentialMovingAverage
from lexalcm.training.train_unit import predict_noised

_RETRIEVAL = {
    "one_pass_cosine": "cosine",
    "retrieval_at_1": "acc_at_1",
    "retrieval_at_10": "acc_at_10",
    "retrieval_at_1_unseen": "acc_at_1_unseen",
    "retrieval_at_10_unseen": "acc_at_10_unseen",
}


@dataclass(frozen=True)
class ValidationDocument:
    """What is measured of one document."""

    concepts: np.ndarray
    """``[T, C]`` as stored."""

    num_source: int = 0
    """Concepts at the start that are context alone."""


@dataclass
class ValidationGroup(ConceptBatch):
    """16 documents in file order: what retrieval ranks among."""

    documents: Sequence[np.ndarray] = ()

    source_lengths: Sequence[int] = ()
    """How many concepts at the start of each are its source; 0 where every concept is predicted."""

    counts: bool = True
    """False for a group that only keeps a rank in step with the others."""


@final
class ValidationReader(DataReader[ValidationGroup]):
    """Hands each rank every ``world_size``-th group of the split, all the same number of times."""

    def __init__(
        self, groups: list[list[ValidationDocument]], *, rank: int, world_size: int, pack: bool, min_context_len: int
    ) -> None:
        """
        :param groups: Documents as stored, cut to what is measured.
        :param pack: As training has it, and ``min_context_len`` too.
        """
        self._groups = groups
        self._pack = pack
        self._min_context_len = min_context_len
        self._rank = rank
        self._world_size = world_size
        self._next = 0

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> list[ValidationGroup]:
        if self._next * self._world_size >= len(self._groups):
            raise StopIteration
        number = self._next * self._world_size + self._rank
        self._next += 1
        chosen = self._groups[number % len(self._groups)]
        documents = [d.concepts for d in chosen]
        source_lengths = [d.num_source for d in chosen]
        batch = collate_documents(
            documents,
            source_lengths=source_lengths if any(source_lengths) else None,
            pack=self._pack,
            min_context_len=self._min_context_len,
        )
        group = ValidationGroup(
            batch.concepts,
            batch.layout,
            batch.target_mask,
            batch.num_targets,
            documents=documents,
            source_lengths=source_lengths,
            counts=number < len(self._groups),
        )
        return [group]

    @override
    def reset(self) -> None:
        self._next = 0

    @override
    def state_dict(self) -> dict[str, object]:
        return {"next": self._next}

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self._next = int(state_dict["next"])  # type: ignore[call-overload]

    @property
    @override
    def num_accumulate(self) -> int:
        return 1


@final
class LcmValidUnit(EvalUnit[ValidationGroup]):
    """Measures groups of documents, with the averaged weights if the run keeps an average."""

    def __init__(
        self,
        dp_model: Module,
        model: TwoTowerModel,
        objective: TrainingObjective,
        *,
        ema: ExponentialMovingAverage | None,
        sampler: Sampler,
        num_samples: int,
    ) -> None:
        self._dp_model = dp_model
        self._model = model
        self._objective = objective
        self._ema = ema
        self._sampler = sampler
        self._num_samples = num_samples
        self._swap = ExitStack()

    @override
    def prepare_metric_bag(self, metric_bag: MetricBag) -> None:
        for name in ("loss", *_RETRIEVAL):
            metric_bag.add(name, Mean())
        if self._num_samples:
            metric_bag.add("energy_score", Mean())

    @override
    def set_train_step_nr(self, step_nr: int) -> None:
        if self._ema is not None:
            self._swap.enter_context(self._ema.swapped_in())

    @override
    def finalize(self, metric_bag: MetricBag) -> None:
        self._swap.close()

    @override
    def process_batch(self, batch: ValidationGroup, metric_bag: MetricBag) -> None:
        self._update_loss(batch, metric_bag)
        positions = sum(max(len(d) - max(1, s), 0) for d, s in zip(batch.documents, batch.source_lengths))
        device = batch.concepts.device
        # Autocast is the trainer's; predictions are made in it as training made its own.
        predicted = list(one_pass(self._model, batch.documents, device=device))
        if batch.counts and positions:
            figures = retrieval_figures(predicted, batch.documents, batch.source_lengths).as_dict()
            for name, figure in _RETRIEVAL.items():
                metric_bag.get(name, Mean).update(float(figures[figure]), weight=positions)
        if self._num_samples:
            self._update_energy(batch, metric_bag, positions, device)

    def _update_loss(self, batch: ValidationGroup, metric_bag: MetricBag) -> None:
        _, _, terms = predict_noised(self._dp_model, self._model, self._objective, batch)
        if batch.counts and batch.num_targets:
            metric_bag.get("loss", Mean).update(terms.loss_sum / batch.num_targets, weight=batch.num_targets)

    def _update_energy(
        self, batch: ValidationGroup, metric_bag: MetricBag, positions: int, device: torch.device
    ) -> None:
        drawn = samples(self._model, batch.documents, self._sampler, num_samples=self._num_samples, device=device)
        scores = [
            energy_score(torch.from_numpy(s[:, n - 1 :]), torch.from_numpy(d[n:].astype(np.float32)))
            for s, d, n in zip(drawn, batch.documents, (max(1, n) for n in batch.source_lengths))
            if len(d) > n
        ]
        if batch.counts and positions:
            metric_bag.get("energy_score", Mean).update(float(torch.cat(scores).mean()), weight=positions)

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        """Nothing to derive: all are means already."""


def create_validation(
    context: RecipeContext,
    dataset: ConceptParquetDataset,
    dp_model: Module,
    model: TwoTowerModel,
    objective: TrainingObjective,
    ema: ExponentialMovingAverage | None,
    *,
    sampler: Sampler,
    max_documents: int | None,
    reading: ReadingConfig,
) -> tuple[list[LcmValidUnit], list[ValidationReader]]:
    """Builds the validation of a training run; empty where it is switched off.

    :param reading: As in training.

    Documents are the first ``max_documents`` (``None``: all) of the evaluation protocol: file order, cut to 128 concepts,
    in groups of 16.
    """
    config = context.get_config_as(LcmTrainConfig)
    split, every = config.dataset.valid_split, config.dataset.hold_out_every
    if every is not None:
        split = config.dataset.train_split
    elif split is None:
        return [], []
    documents = (d for d in dataset.documents(split) if every is None or d.row % every == 0)
    if dataset.is_supervised:
        documents = (d for d in documents if len(d.concepts) <= reading.max_seq_len)  # as in training
    measured = (_with_context(d, dataset, reading) for d in documents)
    chosen = [d for d in islice(measured, max_documents) if len(d.concepts)]
    groups = [chosen[i : i + DOCUMENTS_PER_GROUP] for i in range(0, len(chosen), DOCUMENTS_PER_GROUP)]
    num_samples = config.validation.num_samples
    unit = LcmValidUnit(dp_model, model, objective, ema=ema, sampler=sampler, num_samples=num_samples)
    gang = context.gangs.dp
    reader = ValidationReader(
        groups, rank=gang.rank, world_size=gang.size, pack=reading.pack, min_context_len=reading.min_context_len
    )
    return [unit], [reader]


def _with_context(document: Document, dataset: ConceptParquetDataset, reading: ReadingConfig) -> ValidationDocument:
    """A document as the protocol cuts it; one with a target whole, the special concepts around its source as in training:
    a model that was tuned with them expects them."""
    if not dataset.is_supervised:
        return ValidationDocument(document.concepts[:MAX_CONCEPTS])
    affixes = dataset.affixes(reading)
    source, target = np.split(document.concepts, [document.num_source])
    parts = [affixes.prefix, source, affixes.suffix]
    before = np.concatenate([x.reshape(-1, source.shape[-1]) for x in parts if x is not None])
    return ValidationDocument(np.concatenate([before, target]), len(before))
