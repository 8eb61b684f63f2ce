"""Training on a GPU: the numbers of the CPU's float64, in page-locked batches, without waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq2.gang import FakeGang
from fairseq2.metrics import MetricBag
from torch.nn.utils import clip_grad_norm_

from lexalcm.data.batch import ConceptBatch, collate_documents
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig
from lexalcm.diffusion.objective import Draw, Objective, ObjectiveConfig
from lexalcm.layout import DocumentLayout
from lexalcm.models.parallel import compile_two_towers
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model
from lexalcm.training.ema import ExponentialMovingAverage
from lexalcm.training.train_unit import LcmTrainUnit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LENGTHS = [90, 61, 33, 33, 7, 1]


def model_on(device: str, *, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> Pre1Model:
    """The same weights wherever and in whatever type; modulators are random, since fresh ones are zero."""
    torch.manual_seed(0)
    config = Pre1Config(concept_dim=64, model_dim=128, num_heads=4, ffn_dim=256, timestep_dim=16, linear_context=2)
    config.context_dropout_p = config.bridge_dropout_p = config.denoiser_dropout_p = dropout
    model = create_pre1_model(config)
    for name, parameter in model.named_parameters():
        if "modulator" in name or "linear_context" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.to(device=device, dtype=dtype)


def batch_of(lengths: list[int], *, device: str) -> ConceptBatch:
    rng = np.random.default_rng(0)
    batch = collate_documents([rng.normal(size=(n, 64)).astype(np.float32) for n in lengths])
    batch.num_step_targets = batch.num_targets
    batch.to(torch.device(device))
    return batch


def predict_and_differentiate(model: Pre1Model, draw: Draw) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    parameter = next(model.parameters())
    batch = batch_of(LENGTHS, device=str(parameter.device))
    concepts, noise = (x.to(parameter) for x in (batch.concepts, draw.noise))
    timesteps, dropped = draw.timesteps.to(parameter.device), draw.dropped
    assert dropped is not None
    predicted = model(concepts, noise, timesteps, batch.layout, dropped.to(parameter.device))
    (predicted * concepts).sum().backward()
    gradients = {n: p.grad.cpu().double() for n, p in model.named_parameters() if p.grad is not None}
    return predicted.detach().cpu().double(), gradients


def distance(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float((x - truth).norm() / truth.norm())


@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-4), ("bfloat16", 3e-2)])
@pytest.mark.parametrize(("noise_draws", "compiled"), [(1, False), (3, False), (1, True), (3, True)])
def test_predictions_and_gradients_are_those_of_float64_on_the_cpu(
    precision: str, near: float, noise_draws: int, compiled: bool
) -> None:
    objective = Objective(ObjectiveConfig(noise_draws=noise_draws), model_on("cpu").schedule)
    draw = objective.draw(DocumentLayout(LENGTHS), 64)
    truth, true_gradients = predict_and_differentiate(model_on("cpu", dtype=torch.float64), draw)
    model = model_on("cuda")
    if compiled:
        compile_two_towers(model)
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        predicted, gradients = predict_and_differentiate(model, draw)
    assert distance(predicted, truth) < near
    assert gradients.keys() == true_gradients.keys()
    for name, gradient in gradients.items():
        assert distance(gradient, true_gradients[name]) < near, name


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("noise_draws", [1, 2])
def test_a_step_never_waits_for_the_device(noise_draws: int) -> None:
    device = torch.device("cuda")
    model = model_on("cuda", dropout=0.1)
    objective = Objective(ObjectiveConfig(noise_draws=noise_draws, context_noise=0.1), model.schedule)
    unit = LcmTrainUnit(model, model, objective, FakeGang(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    average = ExponentialMovingAverage(model, optimizer, decay=0.9)
    bag = MetricBag(device)
    unit.prepare_metric_bag(bag)

    def step(batch: ConceptBatch) -> None:
        batch.to(device, non_blocking=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss, _ = unit.process_batch(batch, bag)
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for waiting_allowed in (True, False):  # the first step may make tables
        batch = batch_of(LENGTHS, device="cpu")
        batch.pin_memory()
        if waiting_allowed:
            step(batch)
        else:
            with waiting_is_an_error():
                step(batch)
    assert all(torch.isfinite(x).all() for x in average.averages.values())


@pytest.mark.parametrize("pack", [True, False])
def test_the_reader_fills_page_locked_memory_with_the_same_batches(tiny_corpus: Path, pack: bool) -> None:
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(tiny_corpus)))
    reading = ReadingConfig(max_seq_len=32, concepts_per_batch=64, pack=pack, shuffle=True)
    batches: list[list[ConceptBatch]] = []
    for pin_memory in (False, True):
        reader = dataset.create_reader("train", reading, pin_memory=pin_memory)
        batches.append([batch for step in reader for batch in step])
        reader.close()
    for plain, pinned in zip(*batches, strict=True):
        assert pinned.concepts.is_pinned() and pinned.target_mask.is_pinned() and pinned.layout.positions.is_pinned()
        assert torch.equal(pinned.concepts, plain.concepts)
        assert pinned.layout.lengths == plain.layout.lengths
        pinned.to(torch.device("cuda"), non_blocking=True)
        assert torch.equal(pinned.concepts.cpu(), plain.concepts)
