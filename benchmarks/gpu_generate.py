"""Generation by LexaLCM-Pre1 at full size on a GPU: milliseconds a sentence, with and without CUDA graphs.

    python benchmarks/gpu_generate.py [--contexts 8 128 512] [--batches 1 8 64] [--dtypes bfloat16 float32]

A round gives every document of the batch one sentence: 40 passes of DDIM, or 10 of DPM-Solver++(2M), guided (scale 3,
rescale 0.7). Times are of whole rounds, the median, with everything a user waits for: noise, stop rules, the copy to the
host. *Difference* is the largest between the concepts with and without graphs, as a share of their largest value.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import product
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.generate import GUIDED, generate_fast
from lexalcm.diffusion.samplers import SamplerConfig, create_sampler
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.generator import ConceptGenerator, Prompt
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model

SAMPLERS = {
    40: SamplerConfig(num_steps=40, epsilon_scaling=1.00045, **GUIDED),
    10: SamplerConfig(name="dpm_solver_2m", num_steps=10, **GUIDED),
}

_SENTENCES = 4


def make_model(width: int, device: torch.device, dtype: torch.dtype) -> TwoTowerModel:
    torch.manual_seed(0)
    model = create_pre1_model(Pre1Config(model_dim=width, num_heads=16, ffn_dim=4 * width)).eval()
    for name, parameter in model.named_parameters():
        if "modulator" in name and name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=0.02)  # fresh ones are zero
    model.to(dtype)
    return model.to(device)


def measure(
    model: TwoTowerModel, sampler: SamplerConfig, context_len: int, batch: int, *, graphs: bool, repeats: int
) -> tuple[float, Tensor]:
    """Milliseconds a round, and the concepts."""
    draw = torch.Generator().manual_seed(1)
    prompts = [Prompt(torch.randn(context_len, model.concept_dim, generator=draw), str(i)) for i in range(batch)]
    config = GenerationConfig(
        max_sentences=_SENTENCES, batch_size=batch, end_threshold=None, repetition_threshold=None, cuda_graphs=graphs
    )
    generator = ConceptGenerator(model, create_sampler(sampler), config)
    made = generate_fast(generator, prompts)
    times = []
    for _ in range(repeats):
        start = perf_counter()
        generate_fast(generator, prompts)
        times.append((perf_counter() - start) / _SENTENCES * 1000)
    return statistics.median(times), made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[8, 128, 512], help="sentences of a prompt")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64], help="prompts at once")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], help="of the weights")
    parser.add_argument("--width", type=int, default=1536, help="model_dim")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    print(f"{name}, torch {torch.__version__}, width {args.width}, guided\n")
    print("| weights | prompts | context | passes | eager ms | graphs ms | ratio | difference | peak MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for dtype in args.dtypes:
        model = make_model(args.width, device, getattr(torch, dtype))
        for batch, context_len, (passes, sampler) in product(args.batches, args.contexts, SAMPLERS.items()):
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(device)
            runs = {
                graphs: measure(model, sampler, context_len, batch, graphs=graphs, repeats=args.repeats)
                for graphs in ((False, True) if on_gpu else (False,))
            }
            eager, made = runs[False]
            graphed, other = runs.get(True, runs[False])
            difference = float((made - other).abs().max() / made.abs().max())
            peak = torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else 0
            print(
                f"| {dtype} | {batch} | {context_len} | {passes} | {eager:.1f} | {graphed:.1f} | {eager / graphed:.2f} "
                f"| {difference:.1e} | {peak:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
