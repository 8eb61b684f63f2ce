"""Checks of recorded generation by Meta's release: its two generators and its scorers, from recorded noise.

Its draws have a row for every prompt that is still in the batch, longer prompts included while shorter ones catch up: those
rows are drawn and thrown away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cards_of_cases import load_case_model
from safetensors.torch import load_file
from torch import Tensor

from lexalcm.diffusion.samplers import SamplerConfig, create_sampler
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.draw import draw_concepts
from lexalcm.generation.generator import ConceptGenerator, Ended, NewConcept, Prompt
from lexalcm.generation.stop_rules import SpecialVectors
from lexalcm.layout import DocumentLayout

_LONGEST = 200
"""Meta's ``max_seq_len`` of generators, which stands for a ``max_gen_len`` that nobody names."""


def sampler_of(options: dict[str, Any]) -> SamplerConfig:
    """Meta's options, with its defaults, as ours."""
    threshold = options.get("thresholding", False)
    return SamplerConfig(
        num_steps=options.get("inference_timesteps", 100),
        spacing="meta_trailing",
        guidance_scale=options.get("guidance_scale", 1.0),
        guidance_rescale=options.get("guidance_rescale", 0.0),
        initial_noise_scale=options.get("initial_noise_scale", 1.0),
        epsilon_scaling=options.get("epsilon_scaling"),
        eta=options.get("ddim_eta", 0.0),
        clip_noise=options.get("clip_noise", 100),
        dynamic_thresholding_ratio=options.get("dynamic_thresholding_ratio", 0.995) if threshold else None,
        max_threshold=options.get("sample_max_value", 6.0) if threshold else None,
    )


def generation_of(case: dict[str, Any], batch_size: int, room: int | None) -> GenerationConfig:
    """:param room: For how many sentences the model has positions behind the longest prompt."""
    options, call = case["options"], case["call_kwargs"]
    sampled = case["kind"] == "base_generate" and options.get("sample_latent_variable", True)
    longest = call.get("max_gen_len") or options.get("max_seq_len", _LONGEST)
    trimmed = options.get("trim_hypotheses", False) and not options.get("include_eos_token", False)
    return GenerationConfig(
        max_sentences=longest if room is None else min(longest, room),
        min_sentences=call.get("min_gen_len") or options.get("min_seq_len", 1),
        end_threshold=options.get("eos_threshold", 0.9),
        repetition_threshold=options.get("stop_on_repetition_cosine_threshold"),
        repetition_window=1,
        include_stop=not trimmed,
        temperature=(call.get("temperature") or options.get("lcm_temperature", 1.0)) if sampled else 0.0,
        batch_size=batch_size,
    )


class RecordedNoise:
    """The recorded draws, each prompt's own."""

    def __init__(
        self, latents: list[Tensor], variances: list[Tensor], lengths: list[int], last_positions: list[int]
    ) -> None:
        """
        :param latents: ``[A, 1, C]`` for every decoded position; A prompts are still in the batch.
        :param variances: The same for every denoising step of every decoded position.
        :param last_positions: At which position each prompt's last concept is drawn.
        """
        first = min(lengths)
        steps = len(variances) // max(len(latents), 1)
        self._latents: dict[int, list[Tensor]] = {row: [] for row in range(len(lengths))}
        self._variances: dict[int, list[Tensor]] = {row: [] for row in range(len(lengths))}
        for number, drawn in enumerate(latents):
            position = first + number
            active = [row for row, last in enumerate(last_positions) if last >= position]
            assert len(active) == len(drawn)
            for place, row in enumerate(active):
                if position >= lengths[row]:
                    self._latents[row].append(drawn[place, 0])
                    self._variances[row] += [v[place, 0] for v in variances[number * steps : (number + 1) * steps]]

    def enter(self, prompt: int, key: str) -> None: ...

    def leave(self, prompt: int) -> None: ...

    def latents(self, prompt: int) -> Tensor:
        return self._latents[prompt].pop(0)

    def variance(self, prompt: int) -> Tensor:
        return self._variances[prompt].pop(0)


class LastStepUndrawn(RecordedNoise):
    """Meta draws for the last step too, whose noise has no weight; ours does not ask for it."""

    def __init__(self, *args: Any, num_steps: int) -> None:
        super().__init__(*args)
        for row, drawn in self._variances.items():
            self._variances[row] = [v for i, v in enumerate(drawn) if (i + 1) % num_steps]


def recorded(io: dict[str, Tensor], name: str) -> list[Tensor]:
    return [io[key] for key in sorted(key for key in io if key.startswith(f"in.{name}."))]


def check_generation(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    model = load_case_model(folder, **_meta_positions(case))
    lengths = io["in.prompt_lens"].tolist()
    room = None if model.max_document_len is None else model.max_document_len - max(lengths)
    config = generation_of(case, len(lengths), room)
    sequences = [io[f"out.seq.{row}"] for row in range(len(lengths))]
    # A result that is shorter than what was asked for was stopped by a rule, and trimmed if that is asked for.
    last = [
        len(seq) - (len(seq) == length + config.max_sentences or config.include_stop)
        for seq, length in zip(sequences, lengths)
    ]
    if case["kind"] == "base_generate":
        # With a cache the prefill draws too, and throws it away; without one each draw is for the whole prefix.
        has_prefill = min(lengths) > 1 and not case["call_kwargs"].get("disable_cache")
        latents = recorded(io, "noise")[1 if has_prefill else 0 :]
        latents = [noise[:, -1:] for noise in latents]
        noise = RecordedNoise(latents, [], lengths, last)
        sampler = create_sampler(SamplerConfig(num_steps=1))
    else:
        sampler = create_sampler(sampler_of(case["options"]))
        # Stacked where every draw has the same rows.
        variances = list(io["in.variance_noise"]) if "in.variance_noise" in io else recorded(io, "variance_noise")
        latents = recorded(io, "latent")
        num_steps = len(sampler.timesteps(model.schedule))
        assert sampler.timesteps(model.schedule) == case["inference_timesteps_used"]
        noise = LastStepUndrawn(latents, variances, lengths, last, num_steps=num_steps)
    generator = ConceptGenerator(model, sampler, config, special=SpecialVectors(end=io.get("in.eos_vec")))
    made: list[list[Tensor]] = [[] for _ in lengths]
    reasons = {}
    prompts = [Prompt(io["in.prompt"][row, :length]) for row, length in enumerate(lengths)]
    for event in generator.generate(prompts, noise=noise):
        if isinstance(event, NewConcept):
            made[event.prompt].append(event.concept)
        else:
            assert isinstance(event, Ended)
            reasons[event.prompt] = event.reason
    tolerance = 1e-4 if case["kind"] == "base_generate" else 1e-3
    for row, sequence in enumerate(sequences):
        found = torch.stack([*prompts[row].concepts, *made[row]])
        assert len(found) == len(sequence) == case["hypothesis_lengths"][row]
        torch.testing.assert_close(found, sequence, rtol=tolerance, atol=tolerance)
        full = len(sequence) == lengths[row] + config.max_sentences
        assert full or reasons[row] in ("end_of_text", "repetition")


@torch.inference_mode()
def check_scores(folder: Path, case: dict[str, Any]) -> None:
    """Predictions of every position from its true past."""
    io = load_file(folder / "io.safetensors")
    model = load_case_model(folder, **_meta_positions(case))
    lengths = io["in.prompt_lens"].tolist()
    start = case["call_kwargs"].get("min_context_len", 1)
    sampler = create_sampler(sampler_of(case["options"]))
    latents = recorded(io, "noise" if case["kind"] == "base_score" else "latent")
    tolerance = 1e-4 if case["kind"] == "base_score" else 1e-3
    for row, length in enumerate(lengths):
        state = model.new_state()
        concepts = model.normalize(io["in.prompt"][row : row + 1, :length])
        made = []
        for position in range(1, length):
            layout = DocumentLayout([1], packed=False)
            model.encode(concepts[:, position - 1 : position], layout, state)
            if position < start:
                continue
            active = [other for other, n in enumerate(lengths) if n > position]
            cache = model.next_cache(state)
            if model.predicts_directly:
                assert not latents
                clean = cache
            else:
                latent = latents[position - start][active.index(row)].unsqueeze(0)
                clean = draw_concepts(model, cache, latent, sampler, next_only=True)
            made.append(model.denormalize(clean)[0, 0])
        torch.testing.assert_close(torch.stack(made), io[f"out.seq.{row}"], rtol=tolerance, atol=tolerance)


def _meta_positions(case: dict[str, Any]) -> dict[str, Any]:
    """Meta's denoiser has its query at position 0 in generation."""
    return {} if case["kind"].startswith("base") else {"query_positions": "meta_compatible"}


KINDS = {
    "generate": check_generation,
    "base_generate": check_generation,
    "score": check_scores,
    "base_score": check_scores,
}
