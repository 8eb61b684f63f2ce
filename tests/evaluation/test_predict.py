from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Module

from lexalcm.diffusion.samplers import SamplerConfig, create_sampler
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import ConfigError
from lexalcm.evaluation.batches import packed
from lexalcm.evaluation.predict import one_pass, samples
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model

DIM = 7
GUIDED = create_sampler(SamplerConfig(num_steps=3, guidance_scale=2.0, guidance_rescale=0.5, initial_noise_scale=0.6))


class Oracle(TwoTowerModel):
    """Answers the true concept; ``delay`` 1 answers the one before it. Keeps what it was asked."""

    def __init__(self, delay: int = 0) -> None:
        super().__init__()
        self.concept_dim = DIM
        self.schedule = NoiseSchedule(ScheduleConfig())
        self.prediction_type, self.output_form = "sample", "direct"
        self.delay = delay
        self.asked: list[tuple[Tensor, int, Any]] = []
        self.num_encoded = 0

    def normalize(self, concepts: Tensor) -> Tensor:
        return (concepts.float() - 3.0) / 2.0

    def denormalize(self, concepts: Tensor) -> Tensor:
        return concepts.float() * 2.0 + 3.0

    def encode(self, concepts: Tensor, layout: DocumentLayout, state: Any | None = None) -> Tensor:
        self.num_encoded += 1
        return concepts

    def denoise_cache(self, context: Tensor, layout: DocumentLayout, *, next_only: bool = False) -> Tensor:
        return layout.shift(context) if self.delay else context

    def predict_step(self, noisy: Tensor, timestep: int, cache: Tensor, *, dropped: bool | Tensor = False) -> Tensor:
        self.asked.append((noisy, timestep, dropped))
        return cache

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("predictions of all positions come from the cache")

    def set_normalizer(self, *, center: Tensor, scale: Tensor) -> None:
        raise AssertionError

    def new_state(self, timesteps: Sequence[int] = ()) -> Any:
        raise AssertionError

    def next_cache(self, state: Any) -> Any:
        raise AssertionError

    def flops_per_concept(self, context_len: int, *, noise_draws: int = 1) -> int:
        return 0

    def towers(self) -> list[Module]:
        return []


def documents(lengths: list[int] | None = None, seed: int = 0) -> list[np.ndarray]:
    r = np.random.default_rng(seed)
    return [r.normal(size=(n, DIM)).astype(np.float16) for n in lengths or [5, 1, 9, 2, 4]]


@pytest.fixture(scope="module")
def pre1() -> Pre1Model:
    torch.manual_seed(0)
    layers = {"num_context_layers": 1, "num_denoiser_layers": 1}
    config = Pre1Config(concept_dim=DIM, model_dim=16, num_heads=2, ffn_dim=32, timestep_dim=8, **layers)
    model = create_pre1_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # modulators start at 0 and would hide the context
    model.set_normalizer(center=torch.full((DIM,), 0.5), scale=torch.full((DIM,), 2.0))
    return model


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(x.shape == y.shape and np.allclose(x, y, atol=1e-5) for x, y in zip(a, b))


def test_row_t_minus_1_predicts_concept_t_on_the_stored_scale() -> None:
    docs = documents()
    for predicted, document in zip(one_pass(Oracle(), docs), docs, strict=True):
        assert predicted.dtype == np.float32
        np.testing.assert_allclose(predicted, document[1:], atol=1e-5)
    for predicted, document in zip(one_pass(Oracle(delay=1), docs), docs, strict=True):
        np.testing.assert_allclose(predicted, document[:-1], atol=1e-5)


def test_one_pass_is_one_call_on_unit_noise_at_the_last_timestep() -> None:
    model = Oracle()
    list(one_pass(model, documents([400, 400])))
    ((noise, timestep, dropped),) = model.asked
    assert timestep == model.schedule.last_timestep and dropped is False
    assert noise.mean().abs() < 0.05 and abs(noise.std() - 1.0) < 0.05


def test_one_pass_equals_the_training_forward_document_by_document(pre1: Pre1Model) -> None:
    docs = documents()
    noises: list[Tensor] = []
    step = pre1.predict_step

    def keep(noisy: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        noises.append(noisy)
        return step(noisy, *args, **kwargs)

    pre1.predict_step = keep  # type: ignore[method-assign]
    list(one_pass(pre1, docs, concepts_per_batch=1))
    del pre1.predict_step
    predicted = list(one_pass(pre1, docs))
    for document, noise, found in zip(docs, noises, predicted, strict=True):
        x = torch.from_numpy(document.astype(np.float32))
        timesteps = torch.full((1, len(x)), pre1.schedule.last_timestep)
        layout = DocumentLayout([len(x)], packed=False)
        with torch.no_grad():
            wanted = pre1.denormalize(pre1(pre1.normalize(x)[None], noise[None], timesteps, layout))[0, 1:]
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("concepts_per_batch", [1, 7, 10])
def test_predictions_do_not_depend_on_the_batch(pre1: Pre1Model, concepts_per_batch: int) -> None:
    docs = documents()
    size = {"concepts_per_batch": concepts_per_batch}
    assert same(list(one_pass(pre1, iter(docs), **size)), list(one_pass(pre1, docs)))
    noisy = create_sampler(SamplerConfig(num_steps=3, eta=1.0))
    for config in (GUIDED, noisy):
        wanted = list(samples(pre1, docs, config, num_samples=2))
        assert same(list(samples(pre1, iter(docs), config, num_samples=2, **size)), wanted)


def test_noise_follows_the_seed_the_document_and_the_sample() -> None:
    docs = documents([3, 3])

    def noise(seed: int) -> list[Tensor]:
        model = Oracle()
        list(samples(model, docs, create_sampler(SamplerConfig(num_steps=1)), num_samples=2, seed=seed))
        return [part for noisy, _, _ in model.asked for part in noisy.split(3)]

    first, again, other = noise(0), noise(0), noise(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    every = [tuple(x.flatten().tolist()) for x in first + other]
    assert len(set(every)) == 8


def test_first_samples_are_the_same_however_many_are_drawn(pre1: Pre1Model) -> None:
    docs = documents()
    few, many = (list(samples(pre1, docs, GUIDED, num_samples=n)) for n in (1, 3))
    assert same(few, [drawn[:1] for drawn in many])
    assert not np.allclose(many[0][0], many[0][1])


def test_one_step_sample_is_the_one_pass_prediction(pre1: Pre1Model) -> None:
    docs = documents()
    drawn = list(samples(pre1, docs, create_sampler(SamplerConfig(num_steps=1)), num_samples=1))
    assert same([d[0] for d in drawn], list(one_pass(pre1, docs)))


def test_samples_have_one_row_a_sample_and_encode_once() -> None:
    model, docs = Oracle(), documents()
    drawn = list(samples(model, docs, create_sampler(SamplerConfig(num_steps=4)), num_samples=3))
    assert [d.shape for d in drawn] == [(3, max(len(d) - 1, 0), DIM) for d in docs]
    assert model.num_encoded == 1 and len(model.asked) == 3 * 4
    for d, document in zip(drawn, docs):
        np.testing.assert_allclose(d, np.broadcast_to(document[1:], d.shape), atol=1e-5)


def test_guidance_asks_without_context_and_starts_from_scaled_noise() -> None:
    plain, guided = Oracle(), Oracle()
    list(samples(plain, documents(), create_sampler(SamplerConfig(num_steps=3))))
    list(samples(guided, documents(), GUIDED))
    assert [dropped for _, _, dropped in plain.asked] == [False] * 3
    assert [dropped for _, _, dropped in guided.asked] == [False, False, True, False, True]
    assert torch.allclose(guided.asked[0][0], 0.6 * plain.asked[0][0])


def test_documents_without_a_second_concept_have_empty_predictions(pre1: Pre1Model) -> None:
    docs = [np.zeros((0, DIM), np.float16), *documents([1, 3]), np.zeros((0, DIM), np.float16)]
    for size in (1, 100):
        found = [p.shape for p in one_pass(pre1, docs, concepts_per_batch=size)]
        assert found == [(0, DIM), (0, DIM), (2, DIM), (0, DIM)]
    assert list(one_pass(pre1, [])) == []


def test_model_goes_on_training_where_it_did(pre1: Pre1Model) -> None:
    pre1.train()
    pre1.denoiser.eval()
    before = {name: module.training for name, module in pre1.named_modules()}
    stream = one_pass(pre1, documents([3, 3]), concepts_per_batch=3)
    first = next(stream)
    assert {name: module.training for name, module in pre1.named_modules()} == before
    assert not torch.is_inference_mode_enabled()
    pre1.eval()
    assert np.allclose(first, next(iter(one_pass(pre1, documents([3, 3])))), atol=1e-5), "dropout was on"


def test_more_steps_than_trained_timesteps_are_refused() -> None:
    with pytest.raises(ConfigError, match="between 1 and 100"):
        list(samples(Oracle(), documents(), create_sampler(SamplerConfig(num_steps=101))))


def test_batches_hold_whole_documents_up_to_the_bound() -> None:
    docs = documents([3, 4, 9, 1]) + [np.zeros((0, DIM))] + documents([8])
    found = [(first, [len(d) for d in batch]) for first, batch in packed(docs, concepts_per_batch=8)]
    assert found == [(0, [3, 4]), (2, [9]), (3, [1, 0]), (5, [8])]
