"""Measures a model on documents, beside the baselines.

Shapes: T concepts of a document, C dimensions, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import tee
from typing import Any

import numpy as np
import torch

from lexalcm.diffusion.grid import inference_timesteps
from lexalcm.diffusion.samplers import Sampler, SamplerConfig, create_sampler
from lexalcm.diffusion.scores import energy_score
from lexalcm.errors import ConfigError
from lexalcm.evaluation.baselines import BASELINES, FittedBaselines, baseline_predictions
from lexalcm.evaluation.predict import one_pass, samples
from lexalcm.evaluation.protocol import retrieval_figures
from lexalcm.evaluation.report import Report, Row
from lexalcm.models.interface import TwoTowerModel

Progress = Callable[[str, int], None]
"""Told what is measured, and how many documents are done."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How to measure."""

    sampler: SamplerConfig
    """Of the guided row. The plain one has the same passes, but no guidance and noise of full scale."""

    num_samples: int = 4
    """Samples a position; 0 leaves the sampled rows out."""

    seed: int = 0

    device: torch.device | str | None = None
    """Where the model is; ``None`` asks its parameters."""

    concepts_per_batch: int = 8192

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        self.sampler.check()
        for name, least in (("num_samples", 0), ("concepts_per_batch", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"`{name}` must be at least {least}, but is {getattr(self, name)}.")


def evaluate(
    model: TwoTowerModel,
    documents: Iterable[np.ndarray],
    settings: EvaluationSettings,
    *,
    baseline_documents: Iterable[np.ndarray] | None = None,
    model_name: str = "model",
    dataset_name: str = "dataset",
    split: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Computes every row of the report; memory is that of one batch of documents.

    :param documents: ``[T, C]`` as stored, in file order, cut as in the protocol. Iterated once a row.
    :param baseline_documents: What the baselines are fitted on, cut alike; without it only copying is available.
    :raises ConfigError: The settings do not go with the model.
    :raises DataError: Nothing to predict, or predictions that are not finite.
    """
    settings.check()
    tell = progress if progress is not None else lambda name, num_documents: None
    run: dict[str, Any] = {
        "device": settings.device,
        "concepts_per_batch": settings.concepts_per_batch,
        "seed": settings.seed,
    }
    variants = _sampled_variants(settings)
    for config in variants.values():
        inference_timesteps(model.schedule, config.num_steps, config.spacing)  # refused now, not after an hour

    def point(docs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return (p[None] for p in one_pass(model, docs, **run))

    rows = [_scored("one pass", documents, point, tell, note="from noise")]
    for name, config in variants.items():

        def draw(docs: Iterable[np.ndarray], sampler: Sampler = create_sampler(config)) -> Iterator[np.ndarray]:
            return samples(model, docs, sampler, num_samples=settings.num_samples, **run)

        note = _describe(config, settings.num_samples)
        rows.append(_scored(name, documents, draw, tell, note=note, has_energy=settings.num_samples > 1))

    fitted = None
    if baseline_documents is not None:
        fitted = FittedBaselines(_told(baseline_documents, "fitting the baselines", tell))
    for name in BASELINES:
        rows.append(_baseline_row(name, documents, fitted, tell))
    facts = {
        "num_samples": settings.num_samples,
        "seed": settings.seed,
        "sampler": asdict(settings.sampler),
        "baseline_concepts": None if fitted is None else fitted.num_concepts,
    }
    return Report(model=model_name, dataset=dataset_name, split=split, rows=tuple(rows), settings=facts)


def _sampled_variants(settings: EvaluationSettings) -> dict[str, SamplerConfig]:
    if settings.num_samples == 0:
        return {}
    given = settings.sampler
    plain = replace(given, guidance_scale=1.0, guidance_rescale=0.0, initial_noise_scale=1.0, epsilon_scaling=None)
    variants = {"samples": plain}
    if given.guidance_scale != 1.0:
        variants["samples, guided"] = given
    return variants


def _baseline_row(name: str, documents: Iterable[np.ndarray], fitted: FittedBaselines | None, tell: Progress) -> Row:
    if baseline_predictions(name, (), fitted) is None:
        return Row(name=name, figures=None, note="needs training documents: --baseline-data")

    def predict(docs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        predictions = baseline_predictions(name, docs, fitted)
        assert predictions is not None
        return (p[None] for p in predictions)

    return _scored(name, documents, predict, tell)


def _scored(
    name: str,
    documents: Iterable[np.ndarray],
    predict: Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]],
    tell: Progress,
    *,
    note: str = "",
    has_energy: bool = True,
) -> Row:
    """Scores one predictor: retrieval by its first sample, the energy by all of them.

    :param predict: Documents to ``[S, T - 1, C]`` each; S is 1 for a point prediction, which scores its distance.
    """
    # Predictions lag behind their documents by one batch at most, and that much is what `tee` holds.
    seen, scored, ranked = tee(documents, 3)
    total, count = 0.0, 0

    def first_samples() -> Iterator[np.ndarray]:
        nonlocal total, count
        for number, (drawn, document) in enumerate(zip(predict(seen), scored), start=1):
            if len(document) > 1:
                truth = torch.from_numpy(document[1:].astype(np.float64))
                total += float(energy_score(torch.from_numpy(drawn.astype(np.float64)), truth).sum())
                count += len(truth)
            tell(name, number)
            yield drawn[0]

    figures = retrieval_figures(first_samples(), ranked)
    return Row(name=name, figures=figures, energy_score=total / count if has_energy else None, note=note)


def _told(documents: Iterable[np.ndarray], name: str, tell: Progress) -> Iterator[np.ndarray]:
    for number, document in enumerate(documents, start=1):
        tell(name, number)
        yield document


def _describe(config: SamplerConfig, num_samples: int) -> str:
    text = f"{num_samples} of {config.num_steps} passes, {config.name}"
    if config.guidance_scale != 1.0:
        text += f", guidance {config.guidance_scale:g}"
        text += f", rescale {config.guidance_rescale:g}, noise {config.initial_noise_scale:g}"
    return text
