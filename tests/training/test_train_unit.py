"""A step's loss is the mean over all of its targets, however they are spread over micro-batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fairseq2.gang import FakeGang
from fairseq2.metrics import MetricBag

from lexalcm.data.batch import ConceptBatch, collate_documents, dummy_batch
from lexalcm.diffusion.objective import Draw, Objective, ObjectiveConfig
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.training.metrics import quarter_name
from lexalcm.training.train_unit import LcmTrainUnit

CPU = torch.device("cpu")


def unit_and_model(**fields: object) -> tuple[LcmTrainUnit, torch.nn.Module]:
    torch.manual_seed(0)
    config = Pre1Config(concept_dim=6, model_dim=8, num_heads=2, ffn_dim=12, timestep_dim=4, bridge_dropout_p=0.0)
    config.context_dropout_p = config.denoiser_dropout_p = 0.0
    model = create_pre1_model(config)
    objective = Objective(ObjectiveConfig(**fields), model.schedule)  # type: ignore[arg-type]
    return LcmTrainUnit(model, model, objective, FakeGang(CPU)), model


def batch_of(lengths: list[int], *, seed: int = 0) -> ConceptBatch:
    rng = np.random.default_rng(seed)
    return collate_documents([rng.normal(size=(n, 6)).astype(np.float32) for n in lengths])


def run(unit: LcmTrainUnit, batches: list[ConceptBatch]) -> tuple[float, MetricBag]:
    """What fairseq2's trainer does with a step's batches: the mean of their losses."""
    bag = MetricBag(CPU)
    unit.prepare_metric_bag(bag)
    targets = sum(b.num_targets for b in batches)
    total = 0.0
    for batch in batches:
        batch.num_step_targets, batch.num_step_batches = targets, len(batches)
        loss, count = unit.process_batch(batch, bag)
        assert count is None
        (loss / len(batches)).backward()
        total += loss.item() / len(batches)
    return total, bag


def test_uneven_micro_batches_weigh_by_their_targets() -> None:
    unit, _ = unit_and_model()
    torch.manual_seed(1)
    _, bag = run(unit, [batch_of([9]), batch_of([2, 1], seed=1)])
    torch.manual_seed(1)
    total, again = run(unit, [batch_of([9]), batch_of([2, 1], seed=1)])
    assert total == pytest.approx(float(again.metrics["loss"].compute()), rel=1e-5)
    assert float(bag.metrics["loss"].compute()) == float(again.metrics["loss"].compute())


def test_context_noise_reaches_the_contextualizer_alone_and_only_in_training() -> None:
    unit, model = unit_and_model(context_noise=2.0)
    batch = batch_of([5])
    read: list[torch.Tensor] = []
    noised: list[torch.Tensor] = []
    model.context_frontend.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    model.denoiser_frontend.register_forward_pre_hook(lambda module, inputs: noised.append(inputs[0]))
    for training in (True, False):
        torch.manual_seed(7)
        model.train(training)
        run(unit, [batch])
    assert not torch.equal(read[0], batch.concepts[:-1])
    assert torch.equal(read[1], batch.concepts[:-1])  # this model's normalizer is the identity
    assert torch.equal(noised[1], noised[3])  # the noisy targets are the same with and without


def test_a_batch_that_weighs_nothing_changes_neither_gradients_nor_metrics() -> None:
    gradients = []
    for extra in ([], [dummy_batch(6, pack=True, dtype="float32")]):
        unit, model = unit_and_model(guidance_dropout=0.0)
        torch.manual_seed(1)
        _, bag = run(unit, [batch_of([5, 3]), *extra])
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert int(bag.metrics["num_elements"].compute()) == 8
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("draws", [1, 3])
def test_metrics_are_means_over_targets(draws: int) -> None:
    unit, _ = unit_and_model(noise_draws=draws)
    _, bag = run(unit, [batch_of([7, 40, 3])])
    values = {name: float(metric.compute()) for name, metric in bag.metrics.items()}
    assert values["num_target_elements"] == 50 and values["padding"] == 0
    assert -1.0 <= values["cosine"] <= 1.0 and values["raw_l2"] > 0.0
    assert all(values[quarter_name(q)] > 0.0 for q in range(1, 5))
    assert values["model_flops"] > 0.0
    published = dict(values)
    unit.process_metric_values(published)
    assert "model_flops" not in published and published["model_tflops"] > 0.0


def test_documents_skipped_as_bad_are_counted_by_kind_over_the_whole_run() -> None:
    unit, _ = unit_and_model()
    first, second = batch_of([3]), batch_of([4])
    first.skipped = {"not_finite": 2}
    second.skipped = {"not_finite": 1, "null_vector": 1}
    _, bag = run(unit, [first, second])
    values = {name: float(metric.compute()) for name, metric in bag.metrics.items()}
    unit.process_metric_values(values)
    told = {name: value for name, value in values.items() if "bad_rows" in name}
    assert told == {"total_bad_rows_not_finite": 3, "total_bad_rows_null_vector": 1}


def test_positions_drawn_to_see_no_context_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    unit, model = unit_and_model(guidance_dropout=0.5)
    given: list[torch.Tensor | None] = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args: given.append(args[4]) or forward(*args))
    drawn: list[Draw] = []
    draw = unit._objective.draw
    monkeypatch.setattr(unit._objective, "draw", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    run(unit, [batch_of([9, 7])])
    assert 0 < int(given[0].sum()) < 16
    assert torch.equal(given[0], drawn[0].dropped)
