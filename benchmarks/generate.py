"""Seconds a generated sentence: the generator against the plain formulation, and few steps against many.

The plain formulation is what a literal reading of the method computes: the context encoded anew for every sentence; keys
and values of the whole context in every layer of the denoiser, all modulations, and a batch doubled for guidance at every
step. Both get the same noise and must make the same concepts. A case runs in a process of its own, for its peak memory.

    python benchmarks/generate.py [--families two_tower pre1] [--contexts 8 32 128 512] [--batches 1 8] [--threads 2]
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import plain_pre1, plain_two_tower
from benchmarks.train_step import make_model
from lexalcm.diffusion.samplers import ConfiguredSampler, SamplerConfig, create_sampler
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.generator import ConceptGenerator, NewConcept, Prompt
from lexalcm.generation.noise import SeededNoise
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.pre1.model import Pre1Model

GUIDED = {"guidance_scale": 3.0, "guidance_rescale": 0.7, "initial_noise_scale": 0.6}

PASSES_50 = SamplerConfig(num_steps=40, spacing="meta_trailing", epsilon_scaling=1.00045, **GUIDED)
"""The published evaluation settings, whose 40 steps are 50 passes."""

PASSES_10 = SamplerConfig(name="dpm_solver_2m", num_steps=10, **GUIDED)


@dataclass(frozen=True)
class Case:
    family: str
    width: int
    context_len: int
    batch: int
    num_sentences: int
    repeats: int
    threads: int
    plain: bool
    """Measure the plain formulation too."""


@dataclass(frozen=True)
class Result:
    num_passes: int
    fast: float
    few: float
    plain: float | None
    """Seconds a round of one sentence for every document; 50 passes, 10 passes, 50 plain passes."""

    difference: float | None
    """The largest between the two formulations' concepts, as a share of their largest value."""

    fast_memory: int
    plain_memory: int | None
    """Bytes over what the process had with the model loaded."""


def make_prompts(model: TwoTowerModel, case: Case) -> list[Prompt]:
    draw = torch.Generator().manual_seed(1)
    return [
        Prompt(torch.randn(case.context_len, model.concept_dim, generator=draw), str(number))
        for number in range(case.batch)
    ]


def generate_fast(generator: ConceptGenerator, prompts: list[Prompt]) -> Tensor:
    """``[B, sentences, C]``."""
    made: list[list[Tensor]] = [[] for _ in prompts]
    for event in generator.generate(prompts):
        if isinstance(event, NewConcept):
            made[event.prompt].append(event.concept)
    return torch.stack([torch.stack(concepts) for concepts in made])


@torch.inference_mode()
def generate_plain(
    model: TwoTowerModel, sampler: ConfiguredSampler, prompts: list[Prompt], num_sentences: int
) -> Tensor:
    """``[B, sentences, C]``."""
    plain = plain_pre1 if isinstance(model, Pre1Model) else plain_two_tower
    noise = SeededNoise(0, model.concept_dim)
    for number, prompt in enumerate(prompts):
        noise.enter(number, prompt.key)
    documents = torch.stack([prompt.concepts for prompt in prompts])
    count = len(prompts)
    for _ in range(num_sentences):
        context = plain.plain_context(model, model.normalize(documents))  # type: ignore[arg-type]
        keys = torch.cat([context, torch.zeros_like(context)])
        may_see = torch.ones(2 * count, 1, keys.size(1), dtype=torch.bool)
        may_see[count:, :, 1:] = False
        if isinstance(model, Pre1Model):
            may_see = may_see.unsqueeze(1)
        own = torch.ones(1, 1, 1, dtype=torch.bool)

        def predict(noisy: Tensor, timestep: int, half: slice) -> Tensor:
            at = torch.full(noisy.shape[:-1], timestep)
            out = plain.plain_denoise(model, noisy, at, keys[half], may_see[half], own)  # type: ignore[arg-type]
            return model._clean(out, noisy, model.schedule.alpha_cumprod(at))

        def both(noisy: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
            out = predict(torch.cat([noisy, noisy]), timestep, slice(None))
            return out[:count], out[count:]

        latents = torch.stack([noise.latents(number) for number in range(count)]).unsqueeze(1)
        clean = sampler(lambda x, t: predict(x, t, slice(count)), latents, model.schedule, both=both)
        documents = torch.cat([documents, model.denormalize(clean)], dim=1)
    return documents[:, -num_sentences:]


def measure(case: Case) -> Result:
    """Runs in a process of its own."""
    torch.set_num_threads(case.threads)
    model = make_model(case.width, family=case.family).eval()
    settings = GenerationConfig(
        max_sentences=case.num_sentences, batch_size=case.batch, repetition_threshold=None, end_threshold=None
    )
    prompts = make_prompts(model, case)
    sampler = create_sampler(PASSES_50)
    fast = ConceptGenerator(model, sampler, settings)
    few = ConceptGenerator(model, create_sampler(PASSES_10), settings)
    before = peak_memory()
    made = generate_fast(fast, prompts)
    fast_memory = peak_memory() - before
    generate_fast(few, prompts)
    runs: dict[str, Callable[[], Tensor]] = {
        "fast": lambda: generate_fast(fast, prompts),
        "few": lambda: generate_fast(few, prompts),
    }
    difference = plain_memory = None
    if case.plain:
        before = peak_memory()
        expected = generate_plain(model, sampler, prompts, case.num_sentences)
        # The peak is the process's: what the plain run needs less than the fast one did not show.
        plain_memory = fast_memory + peak_memory() - before
        difference = float((made - expected).abs().max() / expected.abs().max())
        runs["plain"] = lambda: generate_plain(model, sampler, prompts, case.num_sentences)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(case.repeats):
        for name, run in runs.items():
            start = perf_counter()
            run()
            seconds[name].append((perf_counter() - start) / case.num_sentences)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    passes = fast.num_passes
    assert passes is not None
    return Result(passes, medians["fast"], medians["few"], medians.get("plain"), difference, fast_memory, plain_memory)


def peak_memory() -> int:
    """Bytes of memory that this process has held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", default=["two_tower", "pre1"], help="which models")
    parser.add_argument("--width", type=int, default=512, help="model_dim")
    parser.add_argument("--contexts", type=int, nargs="+", default=[8, 32, 128, 512], help="sentences of a prompt")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="prompts at once")
    parser.add_argument("--sentences", type=int, default=3, help="sentences generated for each")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each kind; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--longest-plain", type=int, default=128, help="no plain runs at longer contexts than this")
    args = parser.parse_args()
    print(f"{date.today()}, torch {torch.__version__}, {platform.machine()} CPU, {args.threads} threads, float32,")
    print(
        f"width {args.width}, 3 + 4 layers, concepts of 1024, guidance 3 with rescale 0.7; seconds for one sentence of"
    )
    print("every prompt, memory over that of the loaded model\n")
    print(
        "| family | prompts | context | passes | plain s | fast s | ratio | 10 passes s | difference | plain MiB | fast MiB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for family, batch, context_len in product(args.families, args.batches, args.contexts):
        # The two-tower model of this benchmark has no position table: any context goes.
        case = Case(
            family=family,
            width=args.width,
            context_len=context_len,
            batch=batch,
            num_sentences=args.sentences,
            repeats=args.repeats,
            threads=args.threads,
            plain=context_len <= args.longest_plain,
        )
        with get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (case,))
        plain, ratio, difference, plain_memory = "-", "-", "-", "-"
        if result.plain is not None and result.plain_memory is not None:
            plain, ratio = f"{result.plain:.3f}", f"{result.plain / result.fast:.2f}"
            difference, plain_memory = f"{result.difference:.1e}", f"{result.plain_memory / 2**20:.0f}"
        print(
            f"| {family} | {batch} | {context_len} | {result.num_passes} | {plain} | {result.fast:.3f} | {ratio} "
            f"| {result.few:.3f} | {difference} | {plain_memory} | {result.fast_memory / 2**20:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
