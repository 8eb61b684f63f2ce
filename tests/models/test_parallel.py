"""Compiled models compute what others do, and batches of other sizes are not compiled anew."""

from __future__ import annotations

import torch
from torch._dynamo.testing import CompileCounter

from lexalcm.layout import DocumentLayout
from lexalcm.models.parallel import compile_two_towers
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
