"""Another package's families, found by its entry point alone: its model trains with our recipe, on its objective, is
sampled by its sampler, measured and run by our commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

PACKAGE = '''
from dataclasses import dataclass
from pathlib import Path

import torch
from fairseq2.composition import register_file_assets, register_model_family
from fairseq2.recipe.component import register_component
from torch.nn import Linear, Module, ModuleList

from lexalcm.diffusion.objective import Draw, LossTerms, TrainingObjective
from lexalcm.diffusion.samplers import Sampler
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.document_state import DocumentState, LastVectors
from lexalcm.models.normalizer.model import ConceptNormalizer


@dataclass(kw_only=True)
class ToyConfig:
    concept_dim: int = 8


class Tower(Module):
    def __init__(self, dim):
        super().__init__()
        self.layers = ModuleList([Linear(dim, dim)])


@dataclass
class ToyState(DocumentState):
    context: LastVectors


class ToyModel(TwoTowerModel):
    """Predicts from the previous concept and the noisy one, linearly."""

    prediction_type, output_form = "sample", "direct"

    def __init__(self, config):
        super().__init__()
        self.config, self.concept_dim = config, config.concept_dim
        self.schedule = NoiseSchedule(ScheduleConfig(num_steps=10))
        self.normalizer = ConceptNormalizer(config.concept_dim)
        self.context_tower, self.noisy_tower = Tower(config.concept_dim), Tower(config.concept_dim)

    def normalize(self, concepts):
        return self.normalizer.normalize(concepts)

    def denormalize(self, concepts):
        return self.normalizer.denormalize(concepts)

    def set_normalizer(self, *, center, scale):
        self.normalizer.set_statistics(center=center, scale=scale)

    def encode(self, concepts, layout, state=None):
        if state is not None:
            state.context.replace(self.context_tower.layers[0](concepts), layout.lengths)
            return state.context.latest
        return self.context_tower.layers[0](layout.shift(concepts))

    def predict(self, noisy, timesteps, context, layout, *, dropped=None):
        if dropped is not None:
            context = context.masked_fill(dropped.unsqueeze(-1), 0.0)
        return (context + self.noisy_tower.layers[0](noisy)).float()

    def denoise_cache(self, context, layout, *, next_only=False):
        return context

    def predict_step(self, noisy, timestep, cache, *, dropped=False):
        return (self.noisy_tower.layers[0](noisy) + (0.0 if dropped is True else cache)).float()

    def next_cache(self, state):
        return state.context.latest

    def new_state(self, timesteps=()):
        return ToyState(None, LastVectors())

    def towers(self):
        return [self.context_tower, self.noisy_tower]

    def flops_per_concept(self, context_len, *, noise_draws=1):
        return 6 * (1 + noise_draws) * self.concept_dim**2


@dataclass(kw_only=True)
class ToyObjectiveConfig:
    power: float = 2.0


class ToyObjective:
    """Absolute errors to a power, from pure noise alone."""

    def __init__(self, config, model):
        print(f"toy objective of power {config.power}")
        self.power, self.last = config.power, model.schedule.last_timestep

    def draw(self, layout, concept_dim, *, generator=None):
        timesteps = torch.full_like(layout.query_positions, self.last)
        noise = torch.randn(*timesteps.shape, concept_dim, device=layout.device, generator=generator)
        return Draw(timesteps, noise, None)

    def loss(self, predicted, clean, timesteps, target_mask):
        error = (predicted - clean).abs().pow(self.power).mean(dim=-1)
        return LossTerms((error * target_mask).sum(), error.detach())


@dataclass(kw_only=True)
class ToySamplerConfig:
    passes: int


def create_sampler(resolver, config):
    print(f"toy sampler of {config.passes} passes")

    def draw(denoise, latents, schedule, *, unconditional=None, both=None, variance_noise=None, on_step=None):
        for _ in range(config.passes):
            clean = denoise(latents, schedule.last_timestep)
        return clean

    return draw


def setup(container):
    register_model_family(container, "toy", kls=ToyModel, config_kls=ToyConfig, factory=ToyModel)
    register_component(
        container, TrainingObjective, "toy_objective", ToyObjectiveConfig,
        lambda resolver, config: ToyObjective(config, resolver.resolve(Module, key="model")),
    )
    register_component(container, Sampler, "toy_sampler", ToySamplerConfig, create_sampler)
    register_file_assets(container, Path(__file__).parent / "toy_cards")
'''


CARDS = """
name: cubic
objective_family: toy_objective
objective_config: {power: 3.0}
"""


def test_a_family_of_another_package_trains_is_measured_and_generates(tmp_path: Path, tiny_corpus: Path) -> None:
    site = tmp_path / "site"
    info = site / "toy_family-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "toy_family.py").write_text(PACKAGE)
    (site / "toy_cards").mkdir()
    (site / "toy_cards" / "toy.yaml").write_text(CARDS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fairseq2.extension]\ntoy = toy_family:setup\n")
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def lcm(*words: str) -> str:
        command = [sys.executable, "-m", "lexalcm.cli", "lcm", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    fields = ["model.family=toy", "model.arch=null", "model.config_overrides=null", f"dataset.path={tiny_corpus}"]
    steps = ["regime.num_steps=6", "regime.validate_every_n_steps=2", "regime.checkpoint_every_n_steps=2"]
    short = ["regime.publish_metrics_every_n_steps=2", "dataset.reading.concepts_per_batch=128"]
    own = ["objective={name: cubic}", "validation.sampler={name: null, family: toy_sampler, config: {passes: 2}}"]
    run = tmp_path / "run"
    told = lcm("train", "quickstart", str(run), "--no-rich", "--config", *fields, *steps, *short, *own)
    assert "toy objective of power 3.0" in told
    assert "toy sampler of 2 passes" in told
    table = lcm("evaluate", str(run), str(tiny_corpus), "--samples", "2", "--steps", "4")
    assert "one pass" in table and "ridge4" in table
    prompts, out = tmp_path / "prompts.safetensors", tmp_path / "out.jsonl"
    save_file({"a": torch.randn(3, 8), "b": torch.randn(1, 8)}, prompts)
    words = ["--decoder", "none", "--max-sentences", "2", "--repetition-threshold", "off"]
    lcm("generate", str(run), "--input", str(prompts), "--output", str(out), *words)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["id"]: len(row["concepts"]) for row in rows} == {"a": 2, "b": 2}
