"""Continuing documents: equal to computing everything anew, whatever shares the batch, until a rule says stop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from tiny_generators import DIM, FAMILIES, tiny_model

from lexalcm.diffusion.samplers import SamplerConfig, SamplingError, create_sampler
from lexalcm.errors import ConfigError, DataError
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.generator import ConceptGenerator, Ended, NewConcept, Prompt
from lexalcm.generation.noise import SeededNoise
from lexalcm.generation.stop_rules import SpecialVectors
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel

SAMPLER = create_sampler(SamplerConfig(num_steps=4, guidance_scale=2.0, guidance_rescale=0.5))
CONFIG = GenerationConfig(max_sentences=4, repetition_threshold=None)
PROMPTS = [Prompt(torch.randn(n, DIM, generator=torch.Generator().manual_seed(n)), f"p{n}") for n in (3, 1, 6, 2, 5)]


def run(generator: ConceptGenerator, prompts: list[Prompt] = PROMPTS) -> tuple[dict[str, Tensor], dict[str, Ended]]:
    """What was made for each prompt, and how it ended, by key."""
    made: dict[str, list[Tensor]] = {p.key: [] for p in prompts}
    ends: dict[str, Ended] = {}
    for event in generator.generate(prompts):
        key = prompts[event.prompt].key
        if isinstance(event, Ended):
            ends[key] = event
        else:
            assert event.number == len(made[key]) and key not in ends
            made[key].append(event.concept)
    return {key: torch.stack(x) if x else torch.empty(0, DIM) for key, x in made.items()}, ends


@torch.inference_mode()
def anew(model: TwoTowerModel, prompt: Prompt, num: int, start: Tensor | None = None) -> Tensor:
    """The same concepts with everything computed anew for each, and each prediction by a call of its own."""
    noise = SeededNoise(0, DIM)
    noise.enter(0, prompt.key)
    document = prompt.concepts if start is None else torch.cat([start[None], prompt.concepts])
    for _ in range(num):
        layout = DocumentLayout([len(document)], packed=False)
        context = model.encode(model.normalize(document)[None], layout)
        cache = model.denoise_cache(context, layout, next_only=True)
        clean = SAMPLER(
            lambda x, t: model.denoise_step(x, t, cache),
            noise.latents(0)[None, None],
            model.schedule,
            unconditional=lambda x, t: model.denoise_step(x, t, cache, dropped=True),
        )
        document = torch.cat([document, model.denormalize(clean)[0]])
    return document[-num:]


@pytest.mark.parametrize("family", ["pre1", "two_tower"])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_cached_batches_equal_starting_over_for_every_concept(family: str, batch_size: int) -> None:
    model = tiny_model(family)
    made, ends = run(ConceptGenerator(model, SAMPLER, replace(CONFIG, batch_size=batch_size)))
    for prompt in PROMPTS:
        torch.testing.assert_close(made[prompt.key], anew(model, prompt, 4), rtol=1e-4, atol=1e-4)
        assert ends[prompt.key].reason == "max_sentences" and ends[prompt.key].num_concepts == 4


def test_a_base_model_takes_one_pass_and_its_last_prediction() -> None:
    model = tiny_model("base_lcm")
    generator = ConceptGenerator(model, SAMPLER, replace(CONFIG, batch_size=3))
    made, _ = run(generator)
    assert generator.num_passes == 1
    for prompt in PROMPTS:
        document = prompt.concepts
        for _ in range(4):
            layout = DocumentLayout([len(document)], packed=False)
            with torch.inference_mode():
                following = model.encode(model.normalize(document)[None], layout).following
            document = torch.cat([document, model.denormalize(following[0, -1:])])
        torch.testing.assert_close(made[prompt.key], document[-4:], rtol=1e-4, atol=1e-4)


def test_temperature_adds_noise_to_a_base_model_and_is_refused_elsewhere() -> None:
    base = tiny_model("base_lcm")
    still, _ = run(ConceptGenerator(base, SAMPLER, CONFIG))
    noisy, _ = run(ConceptGenerator(base, SAMPLER, replace(CONFIG, temperature=0.5)))
    assert not torch.allclose(still["p3"][0], noisy["p3"][0])
    noise = SeededNoise(0, DIM)
    noise.enter(0, "p3")
    moved = base.denormalize(base.normalize(still["p3"][0]) + 0.5 * noise.latents(0))
    torch.testing.assert_close(noisy["p3"][0], moved)
    with pytest.raises(ConfigError, match="`temperature`"):
        ConceptGenerator(tiny_model("pre1"), SAMPLER, replace(CONFIG, temperature=0.5))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_prompts_and_the_size_of_the_batch_change_nothing(family: str) -> None:
    model = tiny_model(family)
    sampler = create_sampler(SamplerConfig(num_steps=4, eta=0.5))
    straight, _ = run(ConceptGenerator(model, sampler, replace(CONFIG, batch_size=2)))
    reverse, _ = run(ConceptGenerator(model, sampler, replace(CONFIG, batch_size=5)), PROMPTS[::-1])
    for key, concepts in straight.items():
        torch.testing.assert_close(concepts, reverse[key], rtol=1e-4, atol=1e-4)


def test_seed_0_is_a_seed_and_prompts_of_other_keys_get_other_noise() -> None:
    model = tiny_model("pre1")
    generators = [ConceptGenerator(model, SAMPLER, replace(CONFIG, seed=seed)) for seed in (0, 0, 1)]
    first, again, other = (run(generator)[0] for generator in generators)
    assert torch.equal(first["p3"], again["p3"]) and not torch.allclose(first["p3"], other["p3"])
    twice = [Prompt(PROMPTS[0].concepts, key) for key in ("a", "b")]
    made, _ = run(generators[0], twice)
    assert not torch.allclose(made["a"], made["b"])


def test_a_generator_may_be_used_again() -> None:
    generator = ConceptGenerator(tiny_model("two_tower"), SAMPLER, CONFIG)
    assert torch.equal(run(generator)[0]["p6"], run(generator)[0]["p6"])


def test_finished_documents_make_room_for_waiting_ones_which_are_not_read_before() -> None:
    read = []

    def prompts() -> Iterator[Prompt]:
        for prompt in PROMPTS:
            read.append(prompt.key)
            yield prompt

    events = ConceptGenerator(tiny_model("pre1"), SAMPLER, replace(CONFIG, batch_size=2)).generate(prompts())
    while isinstance(next(events), NewConcept):
        assert len(read) == 2
    rest = list(events)
    assert len(read) == 5 and sum(isinstance(event, Ended) for event in rest) == 4


def made_by(model: TwoTowerModel, **fields: object) -> Tensor:
    return run(ConceptGenerator(model, SAMPLER, replace(CONFIG, **fields)), PROMPTS[:1])[0]["p3"]


def test_the_end_concept_stops_and_is_left_out_unless_asked_for() -> None:
    model = tiny_model("pre1")
    third = made_by(model)[2]
    special = SpecialVectors(end=third + 0.01)
    config = replace(CONFIG, end_threshold=0.99)
    made, ends = run(ConceptGenerator(model, SAMPLER, config, special=special), PROMPTS[:1])
    assert len(made["p3"]) == ends["p3"].num_concepts == 2
    assert ends["p3"].reason == "end_of_text" and ends["p3"].cosine is not None and ends["p3"].cosine > 0.99
    kept, ends = run(ConceptGenerator(model, SAMPLER, replace(config, include_stop=True), special=special), PROMPTS[:1])
    torch.testing.assert_close(kept["p3"][2], third)
    assert len(kept["p3"]) == ends["p3"].num_concepts == 3


def test_no_rule_fires_before_the_sentences_that_are_asked_for() -> None:
    model = tiny_model("pre1")
    first = made_by(model)[0]
    for least, expected in ((0, 0), (1, 4)):
        config = replace(CONFIG, min_sentences=least, end_threshold=0.9999)
        special = SpecialVectors(end=first)
        made, _ = run(ConceptGenerator(model, SAMPLER, config, special=special), PROMPTS[:1])
        assert len(made["p3"]) == expected


def test_the_start_concept_stands_before_every_prompt() -> None:
    model, start = tiny_model("pre1"), torch.full((DIM,), 0.7)
    made, _ = run(ConceptGenerator(model, SAMPLER, CONFIG, special=SpecialVectors(start=start)))
    for prompt in PROMPTS[:2]:
        torch.testing.assert_close(made[prompt.key], anew(model, prompt, 4, start), rtol=1e-4, atol=1e-4)


def test_what_stands_behind_every_prompt_is_read_and_is_no_part_of_the_result() -> None:
    model, behind = tiny_model("two_tower"), torch.full((DIM,), 0.7)
    made, _ = run(ConceptGenerator(model, SAMPLER, CONFIG, special=SpecialVectors(behind=behind)))
    for prompt in PROMPTS[:2]:
        longer = Prompt(torch.cat([prompt.concepts, behind[None]]), prompt.key)
        torch.testing.assert_close(made[prompt.key], anew(model, longer, 4), rtol=1e-4, atol=1e-4)


def test_a_prompt_that_is_too_long_is_cut_from_the_left_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model("two_tower")  # 24 positions
    long = Prompt(torch.randn(40, DIM), "long")
    generator = ConceptGenerator(model, SAMPLER, CONFIG)
    with caplog.at_level("WARNING"):
        cut, _ = run(generator, [long])
    assert "40 sentences; its last 20 are read" in caplog.text
    whole, _ = run(generator, [Prompt(long.concepts[-20:], "long")])
    assert torch.equal(cut["long"], whole["long"])
    with pytest.raises(ConfigError, match=r"`max_sentences` \(24\) leaves no room .* The most is 23"):
        ConceptGenerator(model, SAMPLER, replace(CONFIG, max_sentences=24))


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        (torch.empty(0, DIM), r"the second is empty"),
        (torch.zeros(2, DIM + 1), r"the second has the shape \[2, 9\].* 8 wide"),
        (torch.zeros(DIM), r"the second has the shape \[8\]"),
        (torch.tensor([[0.0] * DIM, [float("nan")] * DIM]), r"the second: the concept of sentence 2 of 2"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused_by_name(concepts: Tensor, message: str) -> None:
    generator = ConceptGenerator(tiny_model("pre1"), SAMPLER, CONFIG)
    with pytest.raises(DataError, match=message):
        run(generator, [PROMPTS[0], Prompt(concepts, "bad", where="the second")])


def test_what_is_not_finite_stops_the_generation() -> None:
    for family in ("pre1", "base_lcm"):
        model = tiny_model(family)
        with torch.no_grad():
            next(
                p for name, p in model.named_parameters() if name.endswith(("output_proj.bias", "postnet.fc.bias"))
            ).fill_(float("inf"))
        with pytest.raises(SamplingError, match=r"not finite[\s\S]*row 1 is Prompt 1, .* and 1 more"):
            run(ConceptGenerator(model, SAMPLER, CONFIG))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_in_half_precision_give_nearly_the_same(family: str) -> None:
    config = replace(CONFIG, max_sentences=1)
    full, _ = run(ConceptGenerator(tiny_model(family), SAMPLER, config))
    half, _ = run(ConceptGenerator(tiny_model(family).to(torch.bfloat16), SAMPLER, config))
    for key, concepts in full.items():
        assert half[key].dtype == torch.float32
        assert torch.cosine_similarity(concepts, half[key], dim=-1).min() > 0.95


def test_special_concepts_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`end` has shape \[3\]"):
        ConceptGenerator(tiny_model("pre1"), SAMPLER, CONFIG, special=SpecialVectors(end=torch.zeros(3)))
