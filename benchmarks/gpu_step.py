"""Training steps of LexaLCM-Pre1 on a GPU: seconds, share of the card's peak, memory, and where the time goes.

    python benchmarks/gpu_step.py [--concepts 2048 16384 32768] [--steps 24] [--compile] [--profile FILE]

A step is what ``fairseq2 lcm train pre1`` does with a batch of documents of natural lengths (64 concepts on average, at
most 128): noise, forward and backward under bfloat16 autocast, clipping, fused AdamW, the average of the weights. As in
training, each batch holds another number of concepts, up to 8 % below the one named, and TF32 is allowed.
Times are between device events, the median of the steps; *host* is the time in which the step is handed to the device,
which must be less. *Allocations* are those that the steps asked of the driver: each waits for the device. With
``--compile`` the model is compiled as under ``model.compile: true``. With ``--profile``, the kernels of three steps go to a
file, longest first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from fairseq2.gang import FakeGang
from fairseq2.metrics import MetricBag
from torch.nn.utils import clip_grad_norm_

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lexalcm.data.batch import ConceptBatch, collate_documents
from lexalcm.diffusion.objective import Objective, ObjectiveConfig
from lexalcm.models.parallel import compile_two_towers
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.training.ema import ExponentialMovingAverage
from lexalcm.training.flops import peak_flops
from lexalcm.training.train_unit import LcmTrainUnit

PARTS = ("forward", "backward", "clip", "optimizer")


def natural_lengths(num_concepts: int, *, longest: int = 128) -> list[int]:
    """Lengths between 1 and ``longest`` that add up to ``num_concepts``."""
    rng = np.random.default_rng(0)
    lengths = []
    while (left := num_concepts - sum(lengths)) > 0:
        lengths.append(min(int(rng.integers(1, longest + 1)), left))
    return lengths


class Bench:
    """A model and all that a step needs."""

    def __init__(
        self, config: Pre1Config, device: torch.device, *, noise_draws: int = 1, compiled: bool = False
    ) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = create_pre1_model(config).to(device)
        if compiled:
            compile_two_towers(self.model)
        inert = self.model.inert_parameters()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name not in inert)
        objective = Objective(ObjectiveConfig(noise_draws=noise_draws), self.model.schedule)
        self.unit = LcmTrainUnit(self.model, self.model, objective, FakeGang(device))
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4, fused=True)
        self.average = ExponentialMovingAverage(self.model, self.optimizer, decay=0.9999)
        self.bag = MetricBag(device)
        self.unit.prepare_metric_bag(self.bag)

    def batch(self, num_concepts: int) -> ConceptBatch:
        rng = np.random.default_rng(1)
        dim = self.model.concept_dim
        vectors = rng.standard_normal((num_concepts, dim), dtype=np.float32).astype(np.float16)
        bounds = np.cumsum(natural_lengths(num_concepts))[:-1]
        batch = collate_documents(np.split(vectors, bounds), dtype="float16")
        batch.num_step_targets = batch.num_targets
        batch.to(self.device)
        return batch

    def step(self, batch: ConceptBatch, mark: Callable[[], None] = lambda: None) -> None:
        mark()
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss, _ = self.unit.process_batch(batch, self.bag)
        mark()
        loss.backward()
        mark()
        clip_grad_norm_(self.trained, 1.0)
        mark()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        mark()


@dataclass
class Timing:
    step: float
    host: float
    allocations: int
    parts: list[float] = field(default_factory=list)


def time_steps(bench: Bench, batches: Sequence[ConceptBatch], *, steps: int) -> Timing:
    for batch in batches:
        bench.step(batch)
    allocations = torch.cuda.memory_stats()["num_device_alloc"]
    events: list[list[torch.cuda.Event]] = []
    host = []
    for _, batch in zip(range(steps), cycle(batches)):
        row: list[torch.cuda.Event] = []

        def mark() -> None:
            row.append(torch.cuda.Event(enable_timing=True))
            row[-1].record()

        torch.cuda.synchronize()
        start = perf_counter()
        bench.step(batch, mark)
        host.append(perf_counter() - start)
        events.append(row)
    torch.cuda.synchronize()
    spans = [[a.elapsed_time(b) / 1e3 for a, b in zip(row, row[1:])] for row in events]
    parts = [statistics.median(column) for column in zip(*spans)]
    allocations = torch.cuda.memory_stats()["num_device_alloc"] - allocations
    return Timing(statistics.median(map(sum, spans)), statistics.median(host), allocations, parts)


def profile(bench: Bench, batch: ConceptBatch, file: Path) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    with torch_profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            bench.step(batch)
        torch.cuda.synchronize()
    table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=90)
    file.write_text(table, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, nargs="+", default=[2048, 16384, 32768], help="concepts a batch")
    parser.add_argument("--noise-draws", type=int, default=1)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--compile", action="store_true", help="as under `model.compile: true`")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write the kernels of the last batch size")
    args = parser.parse_args()
    device = torch.device("cuda", 0)
    torch.backends.fp32_precision = "tf32"  # type: ignore[attr-defined]
    how = "bfloat16 autocast, compiled" if args.compile else "bfloat16 autocast"
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, pre1_400m, {how}\n")
    peak = peak_flops(device)
    bench = Bench(Pre1Config(), device, noise_draws=args.noise_draws, compiled=args.compile)
    print(f"| concepts | step ms | host ms | allocations | {' | '.join(PARTS)} | concepts/s | TFLOP/s | MFU | peak GiB |")
    print("|---" * (8 + len(PARTS)) + "|")
    for count in args.concepts:
        shrink = np.random.default_rng(2).integers(0, count // 12, size=8)
        batches = [bench.batch(count - int(less)) for less in shrink]
        torch.cuda.reset_peak_memory_stats(device)
        timing = time_steps(bench, batches, steps=args.steps)
        count = round(statistics.median(batch.num_targets for batch in batches))
        context_len = batches[0].layout.context_len
        rate = bench.model.flops_per_concept(context_len, noise_draws=args.noise_draws) * count / timing.step
        print(
            f"| {count:,} | {timing.step * 1e3:.1f} | {timing.host * 1e3:.1f} | {timing.allocations} "
            f"| {' | '.join(f'{part * 1e3:.1f}' for part in timing.parts)} | {count / timing.step:,.0f} "
            f"| {rate / 1e12:.0f} | {'?' if peak is None else f'{rate / peak:.1%}'} "
            f"| {torch.cuda.max_memory_allocated(device) / 2**30:.1f} |",
            flush=True,
        )
    if args.profile is not None:
        profile(bench, batches[0], args.profile)


if __name__ == "__main__":
    main()
