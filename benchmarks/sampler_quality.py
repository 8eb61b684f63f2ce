"""What few passes of a sampler cost in quality, on a trained model; nothing is trained here.

    python -m benchmarks.sampler_quality MODEL DATASET [--steps 6 8 10 12 20] [--samples 2] [--documents 48]

Every sampler starts from the same noise. Of each, guided as the card few_step_sampler is and not guided:

- *distance*: of its samples to those of DDIM with 100 passes (or all timesteps, where fewer are trained): root of the
  mean squared difference over root of the mean square, in the model's space;
- *@1, @10*: retrieval among the concepts of 16 documents, own history left out, by one sample a position;
- *energy*: the energy score in the embeddings' space, lower is better, and its change against those 100 passes;
- *CPU s*: processor time of all samples, the encoding of the context with them.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from time import process_time

import numpy as np
import torch

from lexalcm import load_model
from lexalcm.diffusion.samplers import SamplerConfig, create_sampler
from lexalcm.diffusion.scores import energy_score
from lexalcm.evaluation.documents import SplitDocuments, check_dim, chosen_split
from lexalcm.evaluation.predict import samples
from lexalcm.evaluation.protocol import retrieval_figures
from lexalcm.models.interface import TwoTowerModel
from lexalcm.recipes.components import SAMPLERS, choose_component
from lexalcm.recipes.config import ComponentSection, LcmTrainConfig
from lexalcm.recipes.dataset import open_named_dataset
from lexalcm.recipes.host import RecipeHost
from lexalcm.recipes.train import LcmTrainRecipe

CARD = "few_step_sampler"

MOST_STEPS = 100

_DISTANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)

KINDS = (("ddim", "trailing"), ("ddim", "dense_ends"), ("dpm_solver_2m", "trailing"), ("dpm_solver_2m", "dense_ends"))


@dataclass(frozen=True)
class Result:
    """One row: what a sampler gave."""

    config: SamplerConfig
    distance: float
    acc_at_1: float
    acc_at_10: float
    energy: float
    change: float
    """Of the energy score against the reference, as a share of it."""

    seconds: float


@dataclass(frozen=True)
class Drawn:
    """Samples of one sampler: for each document float32 ``[S, T - 1, C]``, on the scale of the embeddings."""

    raw: list[np.ndarray]
    seconds: float


def read_card(name: str) -> SamplerConfig:
    host = RecipeHost(LcmTrainRecipe())
    host.asset_store(LcmTrainConfig())
    config = choose_component(host.resolver, ComponentSection(name=name), SAMPLERS, where="sampler").config
    assert isinstance(config, SamplerConfig)
    return config


def draw(model: TwoTowerModel, documents: Sequence[np.ndarray], config: SamplerConfig, num_samples: int) -> Drawn:
    start = process_time()
    raw = list(samples(model, documents, create_sampler(config), num_samples=num_samples))
    return Drawn(raw, process_time() - start)


def measure(
    model: TwoTowerModel, documents: Sequence[np.ndarray], config: SamplerConfig, drawn: Drawn, reference: Drawn
) -> Result:
    figures = retrieval_figures((d[0] for d in drawn.raw), documents)
    energy = mean_energy(drawn, documents)
    with torch.inference_mode():
        found, wanted = (model.normalize(torch.from_numpy(np.concatenate(x.raw, axis=1))) for x in (drawn, reference))
    distance = float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
    change = energy / mean_energy(reference, documents) - 1.0
    return Result(config, distance, figures.acc_at_1_unseen, figures.acc_at_10_unseen, energy, change, drawn.seconds)


def mean_energy(drawn: Drawn, documents: Sequence[np.ndarray]) -> float:
    samples_SNC = np.concatenate(drawn.raw, axis=1).astype(np.float64)
    truth_NC = np.concatenate([document[1:] for document in documents]).astype(np.float64)
    return float(energy_score(torch.from_numpy(samples_SNC), torch.from_numpy(truth_NC)).mean())


def compare(
    model: TwoTowerModel, documents: Sequence[np.ndarray], guided: SamplerConfig, steps: Sequence[int], num_samples: int
) -> Iterator[tuple[bool, Result]]:
    """Yields every row as it is measured, with whether it is guided."""
    most = min(MOST_STEPS, model.schedule.num_timesteps)
    for is_guided in (False, True):
        base = guided if is_guided else unguided(guided)
        config = replace(base, name="ddim", spacing="trailing", num_steps=most)
        reference = draw(model, documents, config, num_samples)
        yield is_guided, measure(model, documents, config, reference, reference)
        rows = [("dpm_solver_2m", "trailing", most)]
        rows += [(name, spacing, num_steps) for name, spacing in KINDS for num_steps in steps if num_steps < most]
        for name, spacing, num_steps in rows:
            config = replace(base, name=name, spacing=spacing, num_steps=num_steps)
            drawn = draw(model, documents, config, num_samples)
            yield is_guided, measure(model, documents, config, drawn, reference)


def unguided(config: SamplerConfig) -> SamplerConfig:
    return replace(config, guidance_scale=1.0, guidance_rescale=0.0, initial_noise_scale=1.0)


def verdict(card: SamplerConfig, results: Sequence[tuple[bool, Result]]) -> Iterator[str]:
    """One sentence for the card with guidance and one without: is its energy score that of 100 passes?"""
    for is_guided in (False, True):
        rows = [r for g, r in results if g is is_guided]
        settings = card if is_guided else unguided(card)
        own = next((r for r in rows if r.config == settings), None)
        if own is None:
            continue
        changes = [own.energy / r.energy - 1.0 for r in rows[:2]]
        word = "is" if all(abs(change) <= 0.02 for change in changes) else "is NOT"
        yield (
            f"{'Guided' if is_guided else 'Not guided'}, the energy score of {CARD} with {card.num_steps} passes "
            f"{word} within 2 % of {rows[0].config.num_steps}: {changes[0]:+.2%} of ddim, "
            f"{changes[1]:+.2%} of dpm_solver_2m."
        )


def plot(results: Sequence[tuple[bool, Result]], file: Path) -> None:
    """Distance and change of the energy score over passes as a PNG, with and without guidance."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(2, 2, figsize=(10, 7), sharex=True, sharey="row")
    for is_guided, column in ((False, 0), (True, 1)):
        for name, spacing in KINDS:
            rows = [r for g, r in results if g is is_guided and r.distance > 0.0]
            rows = [r for r in rows if (r.config.name, r.config.spacing) == (name, spacing)]
            rows.sort(key=lambda r: r.config.num_steps)
            passes = [r.config.num_steps for r in rows]
            style = {"color": "C0" if name == "ddim" else "C3", "linestyle": "--" if spacing == "trailing" else "-"}
            grid[0, column].plot(passes, [r.distance for r in rows], "o", **style)
            grid[1, column].plot(passes, [100.0 * r.change for r in rows], "o", label=f"{name}, {spacing}", **style)
        grid[0, column].set_title("guided" if is_guided else "not guided")
        grid[0, column].set_yscale("log")
        grid[0, column].set_yticks(_DISTANCES, [str(d) for d in _DISTANCES])
        grid[1, column].axhspan(-2.0, 2.0, color="0.9")
        grid[1, column].set_xscale("log")
        grid[1, column].set_xlabel("passes")
        for axes in grid[:, column]:
            axes.grid(alpha=0.3)
    ticks = sorted({r.config.num_steps for _, r in results})
    grid[1, 0].set_xticks(ticks, [str(t) for t in ticks])
    grid[1, 0].minorticks_off()
    grid[0, 0].set_ylabel("distance to 100 passes of ddim")
    grid[1, 0].set_ylabel("energy score against them, %")
    grid[1, 0].legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a card's name, a card file, or the folder of a training run")
    parser.add_argument("dataset", metavar="DATASET", help="a parquet file or directory, or a dataset's card")
    parser.add_argument("--split", default="validation", help='split to measure, or "all" (default: validation)')
    parser.add_argument("--documents", type=int, default=48, metavar="N", help="its first N (default: 48)")
    parser.add_argument("--steps", type=int, nargs="+", default=[6, 8, 10, 12, 20], help="passes of the samplers")
    parser.add_argument("--samples", type=int, default=2, metavar="S", help="samples a position (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: 1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw the figure, a .png")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = open_named_dataset(args.dataset)
    model = load_model(args.model)
    assert isinstance(model, TwoTowerModel)
    check_dim(model.concept_dim, dataset)
    documents = list(SplitDocuments(dataset, chosen_split(dataset, args.split), args.documents))
    card = read_card(CARD)
    print(
        f"{date.today()}, torch {torch.__version__}, {platform.machine()} CPU, {args.threads} thread(s), float32: "
        f"{len(documents)} documents, {sum(len(d) - 1 for d in documents):,} positions, {args.samples} samples each.\n"
        f"Guided: scale {card.guidance_scale:g}, rescale {card.guidance_rescale:g}, initial noise "
        f"{card.initial_noise_scale:g}.\n\n"
        f"| guided | sampler | spacing | passes | distance | @1 | @10 | energy | change | CPU s |\n"
        f"|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    results = []
    for is_guided, row in compare(model, documents, card, args.steps, args.samples):
        results.append((is_guided, row))
        config = row.config
        print(
            f"| {'yes' if is_guided else 'no'} | {config.name} | {config.spacing} | {config.num_steps} "
            f"| {row.distance:.4f} | {row.acc_at_1:.3f} | {row.acc_at_10:.3f} | {row.energy:.4f} "
            f"| {row.change:+.2%} | {row.seconds:.1f} |",
            flush=True,
        )
    print("\n" + "\n".join(verdict(card, results)))
    if args.plot is not None:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
