"""Measures a model on a dataset, beside the baselines.

Shapes: T concepts of a document, C dimensions, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.diffusion.samplers import SamplerConfig
from lexalcm.diffusion.scores import energy_score
from lexalcm.errors import ConfigError, DataError
from lexalcm.evaluation.baselines import BASELINES, FittedBaselines, baseline_predictions
from lexalcm.evaluation.predict import one_pass, samples
from lexalcm.evaluation.protocol import Figures, cut, retrieval_figures
from lexalcm.evaluation.report import Report, Row
from lexalcm.models.interface import TwoTowerModel


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What to measure."""

    sampler: SamplerConfig
    """Passes and guidance of the sampled rows; the plain one runs without guidance at noise scale 1."""

    num_samples: int = 4
    """Samples a position; 0 leaves the sampled rows out."""

    seed: int = 0

    device: str = "cpu"

    concepts_per_batch: int = 8192


def evaluate(
    model: TwoTowerModel,
    documents: list[np.ndarray],
    settings: EvaluationSettings,
    *,
    baseline_documents: Iterable[np.ndarray] | None = None,
    names: tuple[str, str, str | None] = ("model", "dataset", None),
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Computes every row of the report.

    :param documents: ``[T, C]`` as stored, in file order, already cut to what the protocol looks at.
    :param baseline_documents: What the baselines are fitted on, cut alike; without it they are not available.
    :param names: Of model, dataset and split, for the report.
    :param progress: Told what is measured now.
    """
    say = progress if progress is not None else lambda text: None
    documents = [d for d in documents if len(d)]
    run: dict[str, Any] = {
        "device": settings.device,
        "concepts_per_batch": settings.concepts_per_batch,
        "seed": settings.seed,
    }
    say("one pass from noise")
    rows = [_point_row("one pass", one_pass(model, documents, **run), documents)]
    if settings.num_samples:
        plain = replace(
            settings.sampler,
            guidance_scale=1.0,
            guidance_rescale=0.0,
            initial_noise_scale=1.0,
            epsilon_scaling=None,
        )
        variants = [("samples", plain)]
        if settings.sampler.guidance_scale != 1.0:
            variants.append(("samples, guided", settings.sampler))
        for name, config in variants:
            say(f"{name}: {settings.num_samples} of {config.num_steps} passes")
            rows.append(_sample_row(name, model, documents, config, settings.num_samples, run))
    fitted = None
    if baseline_documents is not None:
        say("fitting baselines")
        fitted = FittedBaselines(baseline_documents)
    for name in BASELINES:
        predictions = baseline_predictions(name, documents, fitted)
        if predictions is None:
            rows.append(Row(name=name, figures=None, note="needs training documents (--baseline-data)"))
        else:
            rows.append(_point_row(name, predictions, documents))
    facts = {"num_samples": settings.num_samples, "seed": settings.seed, "sampler": asdict(settings.sampler)}
    return Report(model=names[0], dataset=names[1], split=names[2], rows=tuple(rows), settings=facts)


def _point_row(name: str, predictions: Iterator[np.ndarray], documents: list[np.ndarray]) -> Row:
    total = [0.0, 0]

    def counted() -> Iterator[np.ndarray]:
        for predicted, document in zip(predictions, documents):
            _add_score(total, predicted[None], document)
            yield predicted

    figures = retrieval_figures(counted(), documents)
    return Row(name=name, figures=figures, energy_score=total[0] / total[1])


def _sample_row(
    name: str,
    model: TwoTowerModel,
    documents: list[np.ndarray],
    config: SamplerConfig,
    num_samples: int,
    run: dict[str, Any],
) -> Row:
    total = [0.0, 0]

    def first_of() -> Iterator[np.ndarray]:
        for drawn, document in zip(samples(model, documents, config, num_samples=num_samples, **run), documents):
            _add_score(total, drawn, document)
            yield drawn[0]

    figures: Figures = retrieval_figures(first_of(), documents)
    note = f"{config.num_steps} passes"
    if config.guidance_scale != 1.0:
        note += f", guidance {config.guidance_scale:g}, rescale {config.guidance_rescale:g}, noise {config.initial_noise_scale:g}"
    return Row(name=name, figures=figures, energy_score=total[0] / total[1] if num_samples > 1 else None, note=note)


def _add_score(total: list[Any], predicted_STC: np.ndarray, document: np.ndarray) -> None:
    """Adds the energy scores of a document's positions; a point prediction, S = 1, scores its distance."""
    if len(document) < 2:
        return
    truth = torch.from_numpy(document[1:].astype(np.float64))
    scores = energy_score(torch.from_numpy(np.asarray(predicted_STC, np.float64)), truth)
    total[0] += float(scores.sum())
    total[1] += len(scores)


def cut_documents(dataset: ConceptParquetDataset, split: str | None, *, most: int | None = None) -> list[np.ndarray]:
    """The documents of a split, cut as in the protocol; at most so many, from the start."""
    found = []
    for document in dataset.documents(split):
        if most is not None and len(found) >= most:
            break
        found.append(document.concepts)
    return list(cut(found))


def check_fit(model: TwoTowerModel, dataset: ConceptParquetDataset) -> None:
    """:raises DataError: Model and dataset have concepts of different widths."""
    if model.concept_dim != dataset.concept_dim:
        raise DataError(
            f"The model predicts concepts of {model.concept_dim} dimensions, but the dataset's have {dataset.concept_dim}."
        )


def check_device(name: str) -> torch.device:
    """:raises ConfigError: The device is not there; those that are get listed."""
    present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"`--device {name}` is not a device. Present: {', '.join(present)}.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count() or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"`--device {name}` is not present on this machine. Present: {', '.join(present)}.")
    return device
