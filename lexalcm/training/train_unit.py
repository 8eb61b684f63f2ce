"""One training batch: noise the concepts, predict them, measure the loss.

Shapes: ``*P`` positions of the batch (N packed, B, T padded), ``*Q`` those that are predicted, C concept_dim, K noise draws.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from time import perf_counter
from typing import final

import fairseq2.recipe  # noqa: F401 - fairseq2.trainer, imported before it, would import itself half-way (0.8.1)
import torch
from fairseq2.gang import Gang, ReduceOperation
from fairseq2.metrics import MetricBag
from fairseq2.metrics.aggregation import Mean, Sum
from fairseq2.trainer import TrainUnit
from torch import Tensor
from torch.nn import Module
from typing_extensions import override

from lexalcm.data.batch import ConceptBatch, WindowIds
from lexalcm.data.validate import BAD_ROW_KINDS
from lexalcm.diffusion.objective import Draw, LossTerms, TrainingObjective
from lexalcm.diffusion.parametrization import add_noise
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.training.flops import peak_flops
from lexalcm.training.metrics import NUM_QUARTERS, bad_rows_name, quarter_name


def predict_noised(
    dp_model: Module, model: TwoTowerModel, objective: TrainingObjective, batch: ConceptBatch
) -> tuple[Tensor, Tensor, LossTerms]:
    """Noises a batch as the objective draws it, predicts it and measures the error.

    :param dp_model: The data-parallel wrapper of ``model``.
    :returns: The clean prediction ``[*Q, C]`` or ``[K, *Q, C]``, the timesteps drawn, and the loss.
    """
    draw = objective.draw(batch.layout, model.concept_dim)
    predicted, terms = predict_drawn(dp_model, model, objective, batch, draw)
    return predicted, draw.timesteps, terms


def predict_drawn(
    dp_model: Module, model: TwoTowerModel, objective: TrainingObjective, batch: ConceptBatch, draw: Draw
) -> tuple[Tensor, LossTerms]:
    """:func:`predict_noised` with noise that is given."""
    layout = batch.layout
    with torch.no_grad():
        context = model.normalize(batch.concepts)
        clean = layout.at_queries(context)
        signal, noise = clean, draw.noise
        if model.prediction_type != "sample":
            # Where there is little noise, an error in it is a much smaller one in the clean concept that is compared:
            # float32 would leave it three digits.
            signal, noise = clean.double(), noise.double()
        noisy = add_noise(signal, noise, model.schedule.alpha_cumprod(draw.timesteps))
        if draw.context_noise is not None and dp_model.training:
            context = context + draw.context_noise
    predicted = dp_model(context, noisy, draw.timesteps, layout, draw.dropped)
    return predicted, objective.loss(predicted, clean, draw.timesteps, layout.at_queries(batch.target_mask))


class _Means:
    """Adds a batch to the averages of a metric bag, unless its loss is not finite: then its step is not taken, and leaves
    no trace in them."""

    def __init__(self, metric_bag: MetricBag, counts: Tensor) -> None:
        """:param counts: bool scalar, on the device."""
        self._metric_bag = metric_bag
        self._counts = counts

    def update(self, name: str, mean: Tensor, weight: Tensor | int) -> None:
        mean = torch.where(self._counts, mean, torch.zeros_like(mean))
        self._metric_bag.get(name, Mean).update(mean, weight=self._counts * weight)


@final
class LcmTrainUnit(TrainUnit[ConceptBatch]):
    """Knows a two-tower model only by its interface."""

    def __init__(self, dp_model: Module, model: TwoTowerModel, objective: TrainingObjective, gang: Gang) -> None:
        """
        :param dp_model: The data-parallel wrapper: calling anything else would bypass gradient synchronisation.
        :param model: The model inside, for what has no parameters.
        :param gang: The data-parallel gang.
        """
        self._dp_model = dp_model
        self._model = model
        self._objective = objective
        self._gang = gang
        self._lapse_start: float | None = None
        self.step_nr = 0
        """The step under way."""
        self._seen: list[tuple[WindowIds | None, DocumentLayout, Tensor]] = []
        self._metric_bag: MetricBag | None = None

    @override
    def set_step_nr(self, step_nr: int) -> None:
        self.step_nr = step_nr
        self._seen.clear()

    def documents_of_step(self) -> tuple[list[str], list[str]]:
        """Names, as ``source:file:row:window``, of the documents of this rank's step: first those in which an error is not
        finite, then all. Waits for the device."""
        suspects: list[str] = []
        everyone: list[str] = []
        for ids, layout, squared_error in self._seen:
            if ids is None:
                continue
            names = ids.names()
            wrong = ~squared_error.isfinite()
            documents = layout.query_documents().expand(wrong.shape)
            suspects += [names[i] for i in documents[wrong].unique().tolist()]
            everyone += names
        return suspects, everyone

    def count_skipped_step(self) -> None:
        """To be called when the step under way is not taken."""
        assert self._metric_bag is not None
        self._metric_bag.get("total_skipped_steps", Sum).update(1 if self._gang.rank == 0 else 0)

    @override
    def prepare_metric_bag(self, metric_bag: MetricBag) -> None:
        self._metric_bag = metric_bag
        for name in ("loss", "raw_l2", "cosine"):
            metric_bag.add(name, Mean())
        for quarter in range(1, NUM_QUARTERS + 1):
            metric_bag.add(quarter_name(quarter), Mean())
        for name in ("num_examples", "num_elements", "num_target_elements", "padding", "model_flops"):
            metric_bag.add(name, Sum())
        for name in ("total_num_examples", "total_num_elements", "total_num_target_elements"):
            metric_bag.add(name, Sum())
        for kind in BAD_ROW_KINDS:
            metric_bag.add(bad_rows_name(kind), Sum())
        metric_bag.add("total_skipped_steps", Sum())
        metric_bag.add("counted_targets", Sum())

    @override
    def process_batch(self, batch: ConceptBatch, metric_bag: MetricBag) -> tuple[Tensor, None]:
        if self._lapse_start is None:
            # The first step after metrics were published, so that a validation in between does not count.
            self._lapse_start = perf_counter()
        predicted, timesteps, terms = predict_noised(self._dp_model, self._model, self._objective, batch)
        self._seen.append((batch.ids, batch.layout, terms.squared_error))
        self._update_metrics(metric_bag, batch, predicted.detach(), timesteps, terms)
        # The trainer averages gradients over ranks and micro-batches; undone here, a step's loss is the mean over all
        # targets of all ranks, whatever each of them holds, a rank without data included.
        # A loss that is not finite makes the shares of all ranks so: none of them takes the step, whatever its gradient.
        targets = float(batch.num_step_targets) + 0.0 * terms.loss_sum.detach()
        if self._gang.size > 1:
            self._gang.all_reduce(targets, ReduceOperation.SUM)
        share = self._gang.size * batch.num_step_batches / targets.clamp(min=1.0)
        return terms.loss_sum * share, None

    @torch.no_grad()
    def _update_metrics(
        self,
        metric_bag: MetricBag,
        batch: ConceptBatch,
        predicted: Tensor,
        timesteps: Tensor,
        terms: LossTerms,
    ) -> None:
        targets = batch.num_targets
        if targets > 0:
            counts = terms.loss_sum.isfinite()
            metric_bag.get("counted_targets", Sum).update(counts * targets)
            means = _Means(metric_bag, counts)
            means.update("loss", terms.loss_sum.detach() / targets, targets)
            self._update_raw_metrics(means, batch, predicted)
            self._update_quarters(means, batch, timesteps, terms)
        layout = batch.layout
        counts = {
            "num_examples": layout.num_documents if targets else 0,
            "num_elements": layout.num_concepts if targets else 0,
            "num_target_elements": targets,
        }
        for name, count in counts.items():
            metric_bag.get(name, Sum).update(count)
            metric_bag.get(f"total_{name}", Sum).update(count)
        for kind, count in batch.skipped.items():
            metric_bag.get(bad_rows_name(kind), Sum).update(count)
        metric_bag.get("padding", Sum).update(layout.num_slots - layout.num_concepts)
        draws = timesteps.numel() / max(layout.num_slots, 1)
        flops = self._model.flops_per_concept(layout.context_len, noise_draws=draws) * counts["num_elements"]
        metric_bag.get("model_flops", Sum).update(float(flops))

    def _update_raw_metrics(self, means: _Means, batch: ConceptBatch, predicted: Tensor) -> None:
        one_draw = predicted if predicted.dim() == batch.concepts.dim() else predicted[0]
        raw = self._model.denormalize(one_draw)
        truth = batch.layout.at_queries(batch.concepts).float()
        mask = batch.layout.at_queries(batch.target_mask).float()
        distance = torch.linalg.vector_norm(raw - truth, dim=-1)
        cosine = torch.nn.functional.cosine_similarity(raw, truth, dim=-1)
        targets = batch.num_targets
        means.update("raw_l2", (distance * mask).sum() / targets, targets)
        means.update("cosine", (cosine * mask).sum() / targets, targets)

    def _update_quarters(self, means: _Means, batch: ConceptBatch, timesteps: Tensor, terms: LossTerms) -> None:
        schedule = self._model.schedule
        counted = batch.layout.at_queries(batch.target_mask).expand(timesteps.shape).float()
        quarter_of = (timesteps - schedule.first_timestep) * NUM_QUARTERS // schedule.num_timesteps
        for quarter in range(NUM_QUARTERS):
            inside = counted * (quarter_of == quarter)
            weight = inside.sum()
            # A quarter that no position drew weighs nothing; its mean is then any finite number.
            mean = (terms.squared_error * inside).sum() / weight.clamp(min=1.0)
            means.update(quarter_name(quarter + 1), mean, weight)

    @override
    def process_metric_values(self, values: MutableMapping[str, object]) -> None:
        for name in ("total_skipped_steps", *map(bad_rows_name, BAD_ROW_KINDS)):
            if not values.get(name, True):
                del values[name]  # a line says what there is
        if not values.pop("counted_targets", True):
            # Every step since the last time was one that was not taken: there is nothing to average.
            for name in ("loss", "raw_l2", "cosine", *map(quarter_name, range(1, NUM_QUARTERS + 1))):
                values.pop(name, None)
        if not math.isfinite(float(values.get("grad_norm", 0.0))):  # type: ignore[arg-type]
            del values["grad_norm"]  # that of a step which was not taken is among those it averages
        flops = values.pop("model_flops", None)
        if flops is None or self._lapse_start is None:
            return
        rate = float(flops) / (perf_counter() - self._lapse_start)
        self._lapse_start = None
        values["model_tflops"] = rate / 1e12
        peak = peak_flops(self._gang.device)
        if peak is not None:
            values["mfu"] = rate / (peak * self._gang.size)
