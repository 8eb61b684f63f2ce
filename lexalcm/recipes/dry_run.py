"""The sanity check before a long run: build everything, step on two real batches, validate on one, say what was
found."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Final, final

import torch
from fairseq2.datasets import DataReader
from fairseq2.evaluator import EvalUnit
from fairseq2.gang import Gangs
from fairseq2.metrics import MetricBag
from fairseq2.task import Task
from torch.nn import Module
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from typing_extensions import override

from lexalcm.data.batch import ConceptBatch
from lexalcm.data.sources import ReadingConfig
from lexalcm.errors import DataError
from lexalcm.models.interface import TwoTowerModel
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.recipes.mixed_precision import is_asked_for, is_imitated
from lexalcm.training.train_unit import LcmTrainUnit

CPU_CONCEPTS: Final = 2048
CPU_DOCUMENTS: Final = 2
_NUM_STEPS: Final = 2


def dry_run_reading(reading: ReadingConfig, device: torch.device) -> ReadingConfig:
    """On a CPU, a dry run's batch holds at most 2,048 concepts: enough to see everything work."""
    if device.type == "cpu" and (reading.concepts_per_batch or 0) > CPU_CONCEPTS:
        return replace(reading, concepts_per_batch=CPU_CONCEPTS)
    return reading


def dry_run_documents(max_documents: int | None, device: torch.device) -> int | None:
    """On a CPU, a dry run validates on at most 2 documents: every sample takes as many passes as the recipe says."""
    if device.type != "cpu":
        return max_documents
    return CPU_DOCUMENTS if max_documents is None else min(max_documents, CPU_DOCUMENTS)


@final
class DryRun(Task):
    """Takes the place of the trainer. Optimizer steps are real, in memory; nothing is written."""

    def __init__(
        self,
        config: LcmTrainConfig,
        gangs: Gangs,
        model: TwoTowerModel,
        unit: LcmTrainUnit,
        reader: DataReader[ConceptBatch],
        optimizer: Optimizer,
        valid_units: Sequence[EvalUnit[Any]],
        valid_readers: Sequence[DataReader[Any]],
        *,
        describe_data: Callable[[], str],
        num_documents: int,
    ) -> None:
        """:param num_documents: Of the training split, for how many steps an epoch has."""
        self._config = config
        self._gangs = gangs
        self._model = model
        self._unit = unit
        self._reader = reader
        self._optimizer = optimizer
        self._valid_units = valid_units
        self._valid_readers = valid_readers
        self._describe_data = describe_data
        self._num_documents = num_documents
        self._seen_documents = self._seen_concepts = 0
        self._step_nr = 0

    @override
    def run(self) -> None:
        torch.manual_seed(self._config.common.seed + self._gangs.root.rank)
        self._say("data", self._describe_data())
        self._say("model", _describe_model(self._model))
        reading = self._config.dataset.reading
        if dry_run_reading(reading, self._gangs.device) is not reading:
            capped = f"capped at {CPU_CONCEPTS:,} concepts, and at {CPU_DOCUMENTS} documents in validation"
            self._say("batch", f"{capped}, since this is a dry run on a CPU")
        precision = self._config.trainer.mixed_precision
        if is_asked_for(precision) and is_imitated(self._gangs.device):
            dtype = _short(precision.dtype)
            self._say("precision", f"float32: this CPU can only imitate the recipe's {dtype}, which takes minutes")
        for _ in range(_NUM_STEPS):
            self._step()
        self._say("epoch", f"about {self._steps_per_epoch():,} step(s) for {self._num_documents:,} documents")
        self._validate()
        self._say("memory", _describe_memory(self._gangs.device))
        self._say("result", "everything works; nothing was written")

    def _step(self) -> None:
        try:
            batches = next(self._reader)
        except StopIteration:
            raise DataError(f"The training split is too small: it has {self._step_nr} batch(es) an epoch.") from None
        self._step_nr += 1
        bag = MetricBag(device=self._gangs.device)
        self._unit.prepare_metric_bag(bag)
        start = perf_counter()
        self._model.train()
        for batch in batches:
            batch.to(self._gangs.device)
            with self._autocast():
                loss, _ = self._unit.process_batch(batch, bag)
            (loss / len(batches)).backward()
        self._seen_documents += sum(batch.layout.num_documents for batch in batches)
        self._seen_concepts += sum(batch.layout.num_concepts for batch in batches)
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        shape = "x".join(map(str, batches[-1].concepts.shape))
        self._say(
            f"step {self._step_nr}",
            f"concepts {shape} {_short(batches[-1].concepts.dtype)} in {batches[-1].layout.num_documents} documents, "
            f"loss {loss.item():.4f} ({_short(loss.dtype)}), gradient norm {norm.item():.4f}, "
            f"{perf_counter() - start:.1f} s",
        )

    def _steps_per_epoch(self) -> int:
        """From the lengths of the documents seen; a long one that was cut counts as its windows."""
        reading, accumulated = self._config.dataset.reading, self._config.trainer.grad_accumulation.num_batches
        per_step = self._gangs.dp.size * accumulated
        if reading.documents_per_batch is not None:
            return math.ceil(self._num_documents / (per_step * reading.documents_per_batch))
        assert reading.concepts_per_batch is not None
        concepts = self._num_documents * self._seen_concepts / self._seen_documents
        return math.ceil(concepts / (per_step * reading.concepts_per_batch))

    def _validate(self) -> None:
        for unit, reader in zip(self._valid_units, self._valid_readers):
            bag = MetricBag(device=self._gangs.device)
            unit.prepare_metric_bag(bag)
            self._model.eval()
            with torch.inference_mode(), self._autocast():
                unit.set_train_step_nr(self._step_nr)
                for batch in next(reader):
                    batch.to(self._gangs.device)
                    unit.process_batch(batch, bag)
                unit.finalize(bag)
            values = {
                name: float(metric.compute()) for name, metric in bag.metrics.items() if not name.startswith("num_")
            }
            self._say("validation", ", ".join(f"{name} {value:.4f}" for name, value in values.items()))

    def _autocast(self) -> torch.autocast:
        precision = self._config.trainer.mixed_precision
        enabled = is_asked_for(precision) and not is_imitated(self._gangs.device)
        return torch.autocast(self._gangs.device.type, dtype=precision.dtype, enabled=enabled)

    def _say(self, what: str, text: str) -> None:
        if self._gangs.root.rank == 0:
            sys.stdout.write(f"{what:>10}  {text}\n")
            sys.stdout.flush()

    @override
    def request_stop(self) -> None:
        """A dry run is over in a moment."""

    @override
    def close(self) -> None:
        self._gangs.close()

    @property
    @override
    def step_nr(self) -> int:
        return self._step_nr


def _describe_model(model: Module) -> str:
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    dtypes = ", ".join(sorted({_short(p.dtype) for p in parameters}))
    return f"{type(model).__name__}, {total:,} parameters ({trained:,} trained), {dtypes}"


def _describe_memory(device: torch.device) -> str:
    # Kibibytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB of main memory at most"
    if device.type == "cuda":
        text += f", {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB of device memory"
    return text


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
