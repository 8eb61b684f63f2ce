"""Continuing a document: deterministic, and equal to computing everything anew for each concept."""

from __future__ import annotations

import torch

from lexalcm.diffusion.samplers import SamplerConfig, create_sampler
from lexalcm.generation.continuation import continue_document
from lexalcm.layout import DocumentLayout
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model

SAMPLER = create_sampler(SamplerConfig(num_steps=4, guidance_scale=2.0))


def model():
    torch.manual_seed(0)
    config = Pre1Config(
        concept_dim=8,
        model_dim=16,
        num_context_layers=2,
        num_denoiser_layers=2,
        num_heads=2,
        ffn_dim=24,
        timestep_dim=8,
    )
    made = create_pre1_model(config).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    made.set_normalizer(center=torch.randn(8), scale=torch.rand(8) + 0.5)
    return made


def test_cached_generation_equals_starting_over_for_every_concept() -> None:
    made = model()
    prompt = torch.randn(3, 8)
    found = continue_document(made, prompt, num_concepts=3, sampler=SAMPLER, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    document = made.normalize(prompt)
    with torch.inference_mode():
        for i in range(3):
            layout = DocumentLayout([len(document)], packed=False)
            cache = made.denoise_cache(made.encode(document.unsqueeze(0), layout), layout, next_only=True)
            new = SAMPLER(
                lambda x, t: made.denoise_step(x, t, cache),
                torch.randn(1, 1, 8, generator=generator),
                made.schedule,
                unconditional=lambda x, t: made.denoise_step(x, t, cache, dropped=True),
            )
            torch.testing.assert_close(found[i], made.denormalize(new)[0, 0], rtol=1e-4, atol=1e-5)
            document = torch.cat([document, new[0]])


def test_a_seed_gives_the_same_concepts() -> None:
    made, prompt = model(), torch.randn(2, 8)
    first, second, other = (
        continue_document(made, prompt, num_concepts=2, sampler=SAMPLER, generator=torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
