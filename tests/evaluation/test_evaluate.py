from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lexalcm.diffusion.samplers import SamplerConfig, create_sampler
from lexalcm.errors import ConfigError, DataError
from lexalcm.evaluation.evaluate import EvaluationSettings, evaluate
from lexalcm.evaluation.predict import one_pass, samples
from lexalcm.evaluation.protocol import retrieval_figures
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model

DIM = 6
SAMPLER = SamplerConfig(num_steps=2, guidance_scale=3.0, guidance_rescale=0.7, initial_noise_scale=0.6)


@pytest.fixture(scope="module")
def model() -> Pre1Model:
    torch.manual_seed(0)
    layers = {"num_context_layers": 1, "num_denoiser_layers": 1}
    return create_pre1_model(Pre1Config(concept_dim=DIM, model_dim=8, num_heads=2, ffn_dim=8, timestep_dim=4, **layers))


class Stream:
    """Documents that can be read again and again, and know how many were read ahead at most."""

    def __init__(self, num: int = 20, seed: int = 0) -> None:
        r = np.random.default_rng(seed)
        self.held = [r.normal(size=(r.integers(1, 6), DIM)).astype(np.float16) for _ in range(num)]
        self.read = self.most = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for number, document in enumerate(self.held, start=1):
            self.read = number
            yield document


def settings(**fields: Any) -> EvaluationSettings:
    return EvaluationSettings(sampler=SAMPLER, **fields)


def test_rows_are_the_figures_of_their_predictions(model: Pre1Model) -> None:
    stream = Stream()
    report = evaluate(model, stream, settings(num_samples=2), baseline_documents=Stream(60, seed=1))
    assert [row.name for row in report.rows] == [
        "one pass", "samples", "samples, guided", "copy", "mean", "ridge1", "ridge4",
    ]  # fmt: skip
    docs = stream.held
    assert report.row("one pass").figures == retrieval_figures(one_pass(model, docs), docs)
    drawn = samples(model, docs, create_sampler(SAMPLER), num_samples=1)
    assert report.row("samples, guided").figures == retrieval_figures((d[0] for d in drawn), docs)
    plain = samples(model, docs, create_sampler(SamplerConfig(num_steps=2)), num_samples=1)
    assert report.row("samples").figures == retrieval_figures((d[0] for d in plain), docs)


def test_point_predictions_score_their_distance_and_samples_the_energy(model: Pre1Model) -> None:
    docs = Stream().held
    report = evaluate(model, docs, settings(num_samples=3))
    distances = np.concatenate([np.linalg.norm(d[1:].astype(np.float64) - d[:-1], axis=1) for d in docs])
    assert report.row("copy").energy_score == pytest.approx(distances.mean(), abs=1e-12)
    scores = []
    for drawn, document in zip(samples(model, docs, create_sampler(SAMPLER), num_samples=3), docs):
        x = drawn.astype(np.float64)
        for i, truth in enumerate(document[1:].astype(np.float64)):
            apart = [np.linalg.norm(x[a, i] - x[b, i]) for a in range(3) for b in range(3) if a != b]
            scores.append(np.mean(np.linalg.norm(x[:, i] - truth, axis=1)) - np.mean(apart) / 2)
    assert report.row("samples, guided").energy_score == pytest.approx(np.mean(scores), abs=1e-9)
    assert evaluate(model, docs, settings(num_samples=1)).row("samples").energy_score is None


def test_documents_are_streamed_in_batches(model: Pre1Model) -> None:
    stream = Stream(400)
    ahead: list[int] = []
    evaluate(
        model,
        stream,
        settings(num_samples=1, concepts_per_batch=20),
        progress=lambda name, num_documents: ahead.append(stream.read - num_documents),
    )
    assert len(ahead) == 4 * 400 and max(ahead) < 25


def test_without_training_documents_only_copying_is_available(model: Pre1Model) -> None:
    report = evaluate(model, Stream(), settings(num_samples=0))
    assert [row.name for row in report.rows if row.figures is not None] == ["one pass", "copy"]
    found = json.loads(report.to_json())
    assert found["rows"]["ridge4"] is None and "--baseline-data" in found["not_available"]["ridge4"]
    assert found["rows"]["copy"]["acc_at_1_unseen"] == report.row("copy").figures.acc_at_1_unseen
    assert report.table().count("not available") == 3


def test_guided_row_is_left_out_without_guidance(model: Pre1Model) -> None:
    plain = EvaluationSettings(sampler=SamplerConfig(num_steps=2), num_samples=1)
    assert "samples, guided" not in [row.name for row in evaluate(model, Stream(), plain).rows]


def test_seed_changes_figures_of_the_model_alone(model: Pre1Model) -> None:
    one, same, other = (evaluate(model, Stream(), settings(num_samples=0, seed=s)).as_dict()["rows"] for s in (0, 0, 1))
    assert one == same
    assert one["one pass"] != other["one pass"] and one["copy"] == other["copy"]


def test_settings_that_do_not_fit_are_refused_before_anything_runs(model: Pre1Model) -> None:
    def unread() -> Iterator[np.ndarray]:
        raise AssertionError("documents were read")
        yield

    with pytest.raises(ConfigError, match="between 1 and 100"):
        evaluate(model, unread(), EvaluationSettings(sampler=SamplerConfig(num_steps=101)))
    with pytest.raises(ConfigError, match="num_samples"):
        evaluate(model, unread(), settings(num_samples=-1))
    with pytest.raises(ConfigError, match="guidance_rescale"):
        evaluate(model, unread(), EvaluationSettings(sampler=SamplerConfig(guidance_rescale=2.0)))


def test_nothing_to_predict_is_an_error(model: Pre1Model) -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        evaluate(model, [np.ones((1, DIM), np.float32)], settings())


def test_table_stands_in_columns(model: Pre1Model) -> None:
    report = evaluate(model, Stream(), settings(num_samples=1), split="validation", dataset_name="d")
    lines = report.table().splitlines()
    assert lines[0].startswith("model on d, split validation: 20 documents, ")
    head, rows = lines[2], {line[:15].strip(): line for line in lines[3:]}
    end = head.index("cosine") + len("cosine")
    for name in ("one pass", "copy"):
        assert rows[name][:end][-7:-4] in (" 0.", "-0."), rows[name]
    assert set(rows) == {"one pass", "samples", "samples, guided", "copy", "mean", "ridge1", "ridge4", "chance"}
