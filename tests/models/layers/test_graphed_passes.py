"""Passes that are recorded for rounded shapes give what plain passes give; on a GPU they are CUDA graphs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "generation"))

from tiny_generators import DIM, denoiser_config, tiny_model

from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.document_state import DocumentState
from lexalcm.models.layers.graphed_passes import GraphedPasses

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def encoded(model: TwoTowerModel, lengths: list[int], device: str) -> DocumentState:
    state = model.new_state()
    assert isinstance(state, DocumentState)
    for length in lengths:
        one = state.fork()
        layout = DocumentLayout([length], packed=False)
        layout.to(torch.device(device))
        model.encode(torch.randn(1, length, DIM, device=device), layout, one)
        state.join(one)
    return state


MODELS = {
    "pre1": lambda: tiny_model("pre1"),
    "two_tower": lambda: tiny_model("two_tower", max_seq_len=100, denoiser=denoiser_config(pos_embedding_style="none")),
    "rotary queries, which are not recorded": lambda: tiny_model("two_tower", max_seq_len=100),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_recorded_passes_equal_plain_ones_for_changing_batches(name: str, device: str) -> None:
    model = MODELS[name]().to(device)
    graphed = None
    for lengths in ([3, 1, 5], [4, 2, 6], [2], [70, 3]):
        state = encoded(model, lengths, device)
        plain_cache = model.next_cache(state)
        graphed = GraphedPasses(state.tables) if graphed is None else graphed
        state.tables = graphed
        cache = model.next_cache(state)
        noisy = torch.randn(len(lengths), 1, DIM, device=device)
        for timestep in (19, 7, 7):
            for denoise in (model.denoise_both, model.denoise_step):
                found, expected = denoise(noisy, timestep, cache), denoise(noisy, timestep, plain_cache)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        alone = model.denoise_step(noisy, 7, cache, dropped=True)
        torch.testing.assert_close(alone, model.denoise_step(noisy, 7, plain_cache, dropped=True))


@torch.inference_mode()
def test_a_result_stays_as_it_is_when_the_next_pass_runs() -> None:
    model = tiny_model("pre1")
    state = encoded(model, [3], "cpu")
    state.tables = GraphedPasses(state.tables)
    cache = model.next_cache(state)
    first = model.denoise_step(torch.ones(1, 1, DIM), 7, cache)
    kept = first.clone()
    model.denoise_step(torch.zeros(1, 1, DIM), 7, cache)
    assert torch.equal(first, kept)
