"""Compiled models and those that recompute layers compute what others do; other sizes of batches are not compiled anew."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from lexalcm.layout import DocumentLayout
from lexalcm.models.parallel import apply_ac_to_two_towers, compile_two_towers
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model


def make_model(**fields: object) -> Pre1Model:
    torch.manual_seed(0)
    small = {"concept_dim": 8, "model_dim": 16, "num_heads": 2, "ffn_dim": 24, "timestep_dim": 4}
    dropout = dict.fromkeys(("context_dropout_p", "bridge_dropout_p", "denoiser_dropout_p"), 0.0)
    model = create_pre1_model(Pre1Config(**{**small, **dropout, **fields}))  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "modulator" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def step(model: Pre1Model, lengths: list[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    concepts, noisy = torch.randn(2, sum(lengths), 8, generator=generator)
    timesteps = torch.randint(1, 101, (sum(lengths),), generator=generator)
    predicted = model(concepts, noisy, timesteps, DocumentLayout(lengths))
    trained = [p for name, p in model.named_parameters() if name not in model.inert_parameters()]
    return predicted, list(torch.autograd.grad(predicted.square().sum(), trained))


def test_a_compiled_model_predicts_and_learns_the_same() -> None:
    torch.compiler.reset()
    plain, compiled = make_model(linear_context=2), make_model(linear_context=2)
    compile_two_towers(compiled, backend="aot_eager")
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for lengths in ([5, 3, 1], [4, 4], [2, 9]):
        (ours, our_gradients), (theirs, their_gradients) = step(compiled, lengths), step(plain, lengths)
        torch.testing.assert_close(ours, theirs)
        for a, b in zip(our_gradients, their_gradients):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_batches_of_other_sizes_are_not_compiled_anew() -> None:
    torch.compiler.reset()
    model, counter = make_model(context_dropout_p=0.1, bridge_dropout_p=0.1), CompileCounter()
    compile_two_towers(model, backend=counter)
    step(model, [5, 3, 2])
    first = counter.frame_count
    for lengths in ([7, 4], [2, 2, 2], [12, 1, 3, 2]):
        step(model, lengths)
    assert counter.frame_count == first > 0


def test_recomputed_layers_learn_the_same_under_the_same_names() -> None:
    plain, recomputed = make_model(linear_context=2), make_model(linear_context=2)
    apply_ac_to_two_towers(recomputed, 2)
    # Averaged weights, frozen weights and checkpoints are found by name.
    assert [n for n, _ in recomputed.named_parameters()] == [n for n, _ in plain.named_parameters()]
    (ours, our_gradients), (theirs, their_gradients) = step(recomputed, [5, 3, 1]), step(plain, [5, 3, 1])
    assert torch.equal(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(our_gradients, their_gradients))


@pytest.mark.parametrize("every", [1, 2])
def test_only_the_layers_that_are_asked_for_run_twice(every: int) -> None:
    model = make_model(num_context_layers=3, num_denoiser_layers=2)
    apply_ac_to_two_towers(model, every)
    runs = {(tower, i): 0 for tower, module in enumerate(model.towers()) for i in range(len(module.layers))}
    for tower, i in runs:
        norm = model.towers()[tower].layers[i].ffn_layer_norm

        def count(*_: object, key: tuple[int, int] = (tower, i)) -> None:
            runs[key] += 1

        norm.register_forward_hook(count)
    step(model, [5, 3, 1])
    assert runs == {(tower, i): 2 if i % every == 0 else 1 for tower, i in runs}
