"""Time of a training step (forward and backward): the fast formulation against the plain one, same weights, same loss.

    python benchmarks/train_step.py [--families pre1 two_tower] [--widths 512 1536] [--repeats 5] [--threads 2]

From Python, on any lengths:

    from benchmarks.train_step import make_model, make_batch, fast_step, plain_step
    model = make_model(512)                              # LexaLCM-Pre1, 3 + 4 layers, concept_dim 1024
    model = make_model(512, family="two_tower")          # Meta's two-tower model, its 1.6B's options at this width
    batch = make_batch([128, 80, 66], model=model)       # random concepts, noise and timesteps of these documents
    loss = fast_step(model, batch)                       # runs backward too; gradients are in model.parameters()
    loss = plain_step(model, batch)                      # the same number, from padded rows and with nothing saved

A step of any two-tower family is ``model(concepts, noisy, timesteps, layout)`` on concepts ``[N, C]`` of all documents one
after the other, with ``layout = DocumentLayout(lengths)``; it returns the predicted clean concepts. A checkpoint of Meta's
is loaded by ``lexalcm.load_model(card)``, and raw embeddings go through ``model.normalize`` first.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import plain_pre1, plain_two_tower
from lexalcm.diffusion.parametrization import add_noise
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.transformer_config import TransformerConfig
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model
from lexalcm.models.two_tower.config import DenoiserConfig, NoiseSchedulerConfig, TwoTowerConfig
from lexalcm.models.two_tower.factory import create_two_tower_model

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


def make_model(model_dim: int, *, family: str = "pre1", concept_dim: int = 1024) -> TwoTowerModel:
    """A model of 3 + 4 layers with random weights everywhere (fresh modulators are zero) and no dropout.

    :param family: ``pre1`` or ``two_tower``.
    """
    torch.manual_seed(0)
    num_heads = model_dim // 96 if model_dim % 96 == 0 else model_dim // 64
    model = _MODELS[family](model_dim, num_heads, concept_dim)
    for name, parameter in model.named_parameters():
        if "modulator" in name and name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def _make_pre1(model_dim: int, num_heads: int, concept_dim: int) -> TwoTowerModel:
    config = Pre1Config(
        concept_dim=concept_dim,
        model_dim=model_dim,
        num_heads=num_heads,
        ffn_dim=4 * model_dim,
        context_dropout_p=0.0,
        bridge_dropout_p=0.0,
        denoiser_dropout_p=0.0,
    )
    return create_pre1_model(config)


def _make_two_tower(model_dim: int, num_heads: int, concept_dim: int) -> TwoTowerModel:
    shared: dict[str, Any] = {
        "num_attn_heads": num_heads,
        "ffn_inner_dim": 4 * model_dim,
        "use_swiglu": True,
        "layer_normalization_style": "rms",
        "mha_output_proj_bias": True,
        "dropout_p": 0.0,
        "final_dropout_p": 0.0,
    }
    config = TwoTowerConfig(
        sonar_embed_dim=concept_dim,
        model_dim=model_dim,
        context_encoder=TransformerConfig(num_layers=3, pos_embedding_style="rope", **shared),
        denoiser=DenoiserConfig(num_layers=4, timestep_embed_dim=model_dim, **shared),
        noise_scheduler=NoiseSchedulerConfig(num_diffusion_train_steps=100),
    )
    return create_two_tower_model(config)


_MODELS = {"pre1": _make_pre1, "two_tower": _make_two_tower}


def make_batch(lengths: list[int], *, model: TwoTowerModel) -> Batch:
    """Random concepts and noise, uniform timesteps, the model's schedule."""
    generator = torch.Generator().manual_seed(1)
    count, schedule = sum(lengths), model.schedule
    concepts = torch.randn(count, model.concept_dim, generator=generator)
    first, last = schedule.first_timestep, schedule.last_timestep
    timesteps = torch.randint(first, last + 1, (count,), generator=generator)
    noise = torch.randn(count, model.concept_dim, generator=generator)
    return Batch(concepts, add_noise(concepts, noise, schedule.alpha_cumprod(timesteps)), timesteps, lengths)


def fast_step(model: TwoTowerModel, batch: Batch) -> float:
    """Forward and backward as training does them; the mean squared error of the clean prediction."""
    model.zero_grad(set_to_none=True)
    predicted = model(batch.concepts, batch.noisy, batch.timesteps, DocumentLayout(batch.lengths))
    loss = (predicted - batch.concepts).square().mean()
    loss.backward()
    return loss.item()


def plain_step(model: TwoTowerModel, batch: Batch) -> float:
    """The same in padded rows and with nothing saved."""
    model.zero_grad(set_to_none=True)
    layout = DocumentLayout(batch.lengths, packed=False)
    real = layout.real
    concepts, noisy = (torch.zeros(*real.shape, x.size(-1)) for x in (batch.concepts, batch.noisy))
    concepts[real], noisy[real] = batch.concepts, batch.noisy
    timesteps = torch.ones(real.shape, dtype=torch.int64)
    timesteps[real] = batch.timesteps
    plain_forward = plain_pre1.plain_forward if isinstance(model, Pre1Model) else plain_two_tower.plain_forward
    predicted = plain_forward(model, concepts, noisy, timesteps, batch.lengths)
    loss = (predicted - concepts)[real].square().mean()
    loss.backward()
    return loss.item()


def compare(model: TwoTowerModel, batch: Batch, repeats: int) -> tuple[float, float, float, float]:
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
    parser.add_argument("--families", nargs="+", default=list(_MODELS), choices=list(_MODELS), help="which models")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1536], help="model_dim of each model")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=2, help="threads of a step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{date.today()}, torch {torch.__version__}, {platform.machine()} CPU, {args.threads} threads, float32\n")
    print("| family | width | parameters | documents | fast s | plain s | ratio | loss fast | loss plain |")
    print("|---|---|---|---|---|---|---|---|---|")
    for family, width in product(args.families, args.widths):
        model = make_model(width, family=family)
        count = sum(p.numel() for p in model.parameters())
        for name, lengths in CASES.items():
            fast, plain, fast_loss, plain_loss = compare(model, make_batch(lengths, model=model), args.repeats)
            print(
                f"| {family} | {width} | {count:,} | {name} | {fast:.3f} | {plain:.3f} | {plain / fast:.2f} "
                f"| {fast_loss:.6f} | {plain_loss:.6f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
