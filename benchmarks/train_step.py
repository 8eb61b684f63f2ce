"""Time of a training step (forward and backward): the fast formulation against the plain one, same weights, same loss.

    python benchmarks/train_step.py [--widths 512 1536] [--repeats 5] [--threads 2]

From Python, on any model of the family and any lengths:

    from benchmarks.train_step import make_model, make_batch, fast_step, plain_step
    model = make_model(512)                              # 3 + 4 layers, concept_dim 1024
    batch = make_batch([128, 80, 66], concept_dim=1024)  # random concepts, noise and timesteps of these documents
    loss = fast_step(model, batch)                       # runs backward too; gradients are in model.parameters()
    loss = plain_step(model, batch)                      # the same number

A step of any two-tower family is ``model(concepts, noisy, timesteps, layout)`` with a ``DocumentLayout`` of the lengths.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.plain_pre1 import plain_forward
from lexalcm.diffusion.parametrization import add_noise
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.layout import DocumentLayout
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model

CASES = {
    "8 x 32": [32] * 8,
    "8 x 128": [128] * 8,
    "natural": [128, 80, 66, 40, 31, 25, 17, 12, 9, 6],
}


@dataclass(frozen=True)
class Batch:
    """Random documents, packed: concepts, noisy concepts ``[N, C]``, timesteps ``[N]``."""

    concepts: Tensor
    noisy: Tensor
    timesteps: Tensor
    lengths: list[int]


def make_model(model_dim: int, *, concept_dim: int = 1024) -> Pre1Model:
    """A Pre1 of 3 + 4 layers with random weights everywhere (fresh modulators are zero) and no dropout."""
    torch.manual_seed(0)
    config = Pre1Config(
        concept_dim=concept_dim,
        model_dim=model_dim,
        num_heads=model_dim // 96 if model_dim % 96 == 0 else model_dim // 64,
        ffn_dim=4 * model_dim,
        context_dropout_p=0.0,
        bridge_dropout_p=0.0,
        denoiser_dropout_p=0.0,
    )
    model = create_pre1_model(config)
    for layer in model.denoiser.layers:
        for modulator in (layer.self_attn_modulator, layer.cross_attn_modulator, layer.ffn_modulator):
            torch.nn.init.normal_(modulator.weight, std=0.02)
    return model


def make_batch(lengths: list[int], *, concept_dim: int = 1024) -> Batch:
    """Random concepts and noise, uniform timesteps, cosine schedule."""
    generator = torch.Generator().manual_seed(1)
    count = sum(lengths)
    concepts = torch.randn(count, concept_dim, generator=generator)
    timesteps = torch.randint(1, 101, (count,), generator=generator)
    schedule = NoiseSchedule(ScheduleConfig())
    noise = torch.randn(count, concept_dim, generator=generator)
    return Batch(concepts, add_noise(concepts, noise, schedule.alpha_cumprod(timesteps)), timesteps, lengths)


def fast_step(model: Pre1Model, batch: Batch) -> float:
    """Forward and backward as training does them; the mean squared error of the clean prediction."""
    model.zero_grad(set_to_none=True)
    predicted = model(batch.concepts, batch.noisy, batch.timesteps, DocumentLayout(batch.lengths))
    loss = (predicted - batch.concepts).square().mean()
    loss.backward()
    return loss.item()


def plain_step(model: Pre1Model, batch: Batch) -> float:
    """The same in padded rows and with nothing saved."""
    model.zero_grad(set_to_none=True)
    layout = DocumentLayout(batch.lengths, packed=False)
    real = layout.real
    concepts, noisy = (torch.zeros(*real.shape, x.size(-1)) for x in (batch.concepts, batch.noisy))
    concepts[real], noisy[real] = batch.concepts, batch.noisy
    timesteps = torch.ones(real.shape, dtype=torch.int64)
    timesteps[real] = batch.timesteps
    predicted = plain_forward(model, concepts, noisy, timesteps, batch.lengths)
    loss = (predicted - concepts)[real].square().mean()
    loss.backward()
    return loss.item()


def compare(model: Pre1Model, batch: Batch, repeats: int) -> tuple[float, float, float, float]:
    """Median seconds of the fast and the plain step, run in turn, and their losses."""
    fast_loss, plain_loss = fast_step(model, batch), plain_step(model, batch)  # warm-up
    fast, plain = [], []
    for _ in range(repeats):
        for times, step in ((fast, fast_step), (plain, plain_step)):
            start = perf_counter()
            step(model, batch)
            times.append(perf_counter() - start)
    return statistics.median(fast), statistics.median(plain), fast_loss, plain_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1536], help="model_dim of each model")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=2, help="threads of a step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{date.today()}, torch {torch.__version__}, {platform.machine()} CPU, {args.threads} threads, float32\n")
    print("| width | parameters | documents | fast s | plain s | ratio | loss fast | loss plain |")
    print("|---|---|---|---|---|---|---|---|")
    for width in args.widths:
        model = make_model(width)
        count = sum(p.numel() for p in model.parameters())
        for name, lengths in CASES.items():
            fast, plain, fast_loss, plain_loss = compare(model, make_batch(lengths), args.repeats)
            print(
                f"| {width} | {count:,} | {name} | {fast:.3f} | {plain:.3f} | {plain / fast:.2f} "
                f"| {fast_loss:.6f} | {plain_loss:.6f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
