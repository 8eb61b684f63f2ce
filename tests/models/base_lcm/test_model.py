"""Regression in the two-tower interface: the plain transformer in float64, and what may depend on what."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.plain_two_tower import plain_transformer
from lexalcm.diffusion.samplers import SamplerConfig, create_sampler
from lexalcm.errors import ConfigError
from lexalcm.generation.draw import draw_concepts
from lexalcm.layout import DocumentLayout
from lexalcm.models.base_lcm.config import BaseConfig, BaseFrontendConfig
from lexalcm.models.base_lcm.factory import create_base_model
from lexalcm.models.base_lcm.model import BaseLCM
from lexalcm.models.layers.transformer_config import ProjectionConfig, TransformerConfig
from lexalcm.models.normalizer.config import NormalizerConfig

LENGTHS = [5, 3, 8, 1]


def model_of(**fields: object) -> BaseLCM:
    """In float64, with every weight random."""
    torch.manual_seed(0)
    config = BaseConfig(
        sonar_embed_dim=10,
        model_dim=24,
        max_seq_len=40,
        frontend=BaseFrontendConfig(scale_embeddings=True),
        lcm=TransformerConfig(
            num_attn_heads=2, ffn_inner_dim=32, pos_embedding_style="rope", dropout_p=0.0, final_dropout_p=0.0
        ),
        postnet=ProjectionConfig(activation_name="tanh"),
        **fields,  # type: ignore[arg-type]
    )
    model = create_base_model(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_each_position_is_what_the_plain_transformer_says_after_the_one_before() -> None:
    model = model_of()
    concepts = torch.randn(17, 10).double()
    found = model(concepts, torch.randn(17, 10).double(), torch.full((17,), 3), DocumentLayout(LENGTHS))
    for part, rows in zip(concepts.split(LENGTHS), found.split(LENGTHS)):
        x = model.frontend.pre_linear(part * 24**0.5)[None]
        causal = torch.ones(1, len(part), len(part), dtype=torch.bool).tril()
        plain = torch.tanh(model.postnet.fc(plain_transformer(model.lcm, model.config.lcm, x, causal)))[0]
        torch.testing.assert_close(rows[1:], plain[:-1])
        assert not rows[0].any()


def test_noise_and_timestep_change_nothing_and_a_source_is_not_predicted() -> None:
    model = model_of()
    concepts = torch.randn(17, 10).double()
    layout = DocumentLayout(LENGTHS)
    whole = model(concepts, torch.zeros(2, 17, 10).double(), torch.ones(2, 17).long(), layout)
    other = model(concepts, torch.randn(2, 17, 10).double(), torch.full((2, 17), 9), layout)
    assert torch.equal(whole, other) and torch.equal(whole[0], whole[1])
    behind = DocumentLayout(LENGTHS, source_lengths=[2, 1, 7, 0])
    some = model(concepts, torch.zeros(7, 10).double(), torch.ones(7).long(), behind)
    assert torch.equal(some, whole[0][behind.queries])


def test_incremental_prediction_equals_the_whole_documents() -> None:
    model = model_of().eval()
    concepts = torch.randn(2, 8, 10).double()
    whole = DocumentLayout([8, 8], packed=False)
    expected = model(concepts, torch.zeros_like(concepts), torch.ones(2, 8).long(), whole)
    state = model.new_state()
    for start, stop in ((0, 3), (3, 4), (4, 7)):
        layout = DocumentLayout([stop - start] * 2, packed=False)
        cache = model.denoise_cache(model.encode(concepts[:, start:stop], layout, state), layout, next_only=True)
        found = model.denoise_step(torch.randn(2, 1, 10).double(), 40, cache)
        torch.testing.assert_close(found, expected[:, stop : stop + 1])


def test_any_sampler_gives_the_prediction() -> None:
    model = model_of().eval()
    layout = DocumentLayout(LENGTHS)
    cache = model.denoise_cache(model.encode(torch.randn(17, 10).double(), layout), layout)
    for config in (SamplerConfig(num_steps=1), SamplerConfig(num_steps=7, name="dpm_solver_2m")):
        drawn = draw_concepts(model, cache, torch.randn(17, 10).double(), create_sampler(config))
        torch.testing.assert_close(drawn, cache)
    with pytest.raises(ConfigError, match="guidance_scale: 1"):
        draw_concepts(model, cache, torch.randn(17, 10), create_sampler(SamplerConfig(guidance_scale=2.0)))


def test_training_without_context_is_refused() -> None:
    layout = DocumentLayout([3])
    dropped = torch.tensor([False, True, False])
    with pytest.raises(ConfigError, match=r"guidance_dropout: 0"):
        model_of()(torch.randn(3, 10).double(), torch.randn(3, 10).double(), torch.ones(3).long(), layout, dropped)


def test_concepts_are_taken_as_they_are_unless_a_normalizer_is_configured() -> None:
    plain, normal = model_of(), model_of(normalizer=NormalizerConfig(dim=10))
    concepts = torch.randn(4, 10)
    assert torch.equal(plain.normalize(concepts), concepts) and torch.equal(plain.denormalize(concepts), concepts)
    assert not any("normalizer" in key for key in plain.state_dict())
    with pytest.raises(ConfigError, match=r"normalizer\.identity: true"):
        plain.set_normalizer(center=torch.ones(10), scale=torch.ones(10))
    normal.set_normalizer(center=torch.ones(10), scale=torch.full((10,), 2.0))
    torch.testing.assert_close(normal.normalize(concepts), (concepts - 1.0) / 2.0)
    assert "frontend.sonar_normalizer.center" in normal.state_dict()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_output_dim": 5}, r"`model_output_dim` \(5\) must equal `sonar_embed_dim` \(10\)"),
        ({"normalizer": NormalizerConfig(dim=8)}, "8 dimensions, but its `sonar_embed_dim` is 10"),
        ({"model_type": "two_tower_diffusion_lcm"}, "`model_type` must be base_lcm"),
    ],
)
def test_configurations_that_cannot_be_honoured_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_of(**fields)
