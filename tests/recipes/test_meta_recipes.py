"""The recipes for Meta's families: each is tried on tiny overrides, and fine-tuning trains on prompts and answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from lexalcm import load_model
from lexalcm.errors import ConfigError
from lexalcm.models.base_lcm.model import BaseLCM
from lexalcm.models.two_tower.model import TwoTowerDiffusionLCM
from lexalcm.recipes.curves import read_metrics
from lexalcm.recipes.run import run_training

TOWER = "num_layers: 1, num_attn_heads: 2, ffn_inner_dim: 24"
TINY = {
    "two_tower": (
        "model.config_overrides={sonar_embed_dim: 8, model_dim: 16, "
        f"context_encoder: {{{TOWER}}}, denoiser: {{{TOWER}, timestep_embed_dim: 16}}}}"
    ),
    "base_lcm": (
        "model.config_overrides={sonar_embed_dim: 8, model_dim: 16, normalizer: {dim: 8}, lcm: {" + TOWER + "}}"
    ),
}
SHORT = [
    "regime.num_steps=6",
    "regime.validate_every_n_steps=3",
    "regime.checkpoint_every_n_steps=3",
    "regime.publish_metrics_every_n_steps=1",
    "lr_scheduler.config.num_warmup_steps=2",
    "trainer.mixed_precision.mode=off",
    "dataset.reading.max_seq_len=48",
    "dataset.reading.concepts_per_batch=48",
    "validation.sampler.config={num_steps: 2}",
    "common.metric_recorders.tensorboard.enabled=false",
]


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Meta's fine-tuning layout with 8-d concepts, special concepts, and a datacard of Meta's."""
    folder = tmp_path_factory.mktemp("dialogues")
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 17)):
        columns: dict[str, list] = {}
        for side in ("prompt_sentences", "text_sentences"):
            lengths = rng.integers(1, 6, count)
            columns[side] = [[f"s{i}" for i in range(n)] for n in lengths]
            columns[f"{side}_sonar_emb"] = [rng.normal(size=(n, 8)).tolist() for n in lengths]
        (folder / f"split={split}").mkdir()
        vectors = pa.list_(pa.list_(pa.float32(), 8))
        table = {k: pa.array(v, vectors if k.endswith("emb") else pa.list_(pa.string())) for k, v in columns.items()}
        pq.write_table(pa.table(table), folder / f"split={split}" / "part-0.parquet")
    card = {
        "name": "finetuning_data",
        "parquet_path": {"s3": str(folder)},
        "source_column": "prompt_sentences_sonar_emb",
        "source_text_column": "prompt_sentences",
        "target_column": "text_sentences_sonar_emb",
        "target_text_column": "text_sentences",
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    save_file({"model": torch.randn(8), "end": torch.randn(8)}, folder / "special.safetensors")
    return folder


@pytest.mark.parametrize(
    ("recipe", "arch"), [("two_tower_1_6b", "toy_two_tower_diffusion_lcm"), ("base_lcm", "toy_base_lcm")]
)
def test_pretraining_recipes_can_be_tried_and_train(
    recipe: str, arch: str, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = recipe.removesuffix("_1_6b")
    more = ["model.config_overrides={trained_with_cf_guidance: true}"] if family == "two_tower" else []
    overrides = [f"dataset.path={tiny_corpus}", f"model.arch={arch}", TINY[family], *more, *SHORT]
    assert run_training(recipe, overrides=overrides, no_rich=True, dry_run=True) == 0
    assert "everything works; nothing was written" in capsys.readouterr().out
    assert run_training(recipe, tmp_path / "run", overrides=overrides, no_rich=True) == 0
    losses = [entry["Loss"] for entry in read_metrics(tmp_path / "run" / "metrics" / "train.jsonl")]
    assert len(losses) == 6 and np.isfinite(losses).all()
    assert isinstance(load_model(tmp_path / "run"), TwoTowerDiffusionLCM if family == "two_tower" else BaseLCM)


@pytest.mark.parametrize("family", ["two_tower", "base_lcm"])
def test_fine_tuning_goes_on_from_a_trained_model_on_prompts_and_answers(
    family: str, tiny_corpus: Path, dialogues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = {"two_tower": "toy_two_tower_diffusion_lcm", "base_lcm": "toy_base_lcm"}[family]
    fields = [TINY[family], f"model.arch={arch}", f"dataset.path={tiny_corpus}", *SHORT]
    if family == "two_tower":
        fields.append("model.config_overrides={trained_with_cf_guidance: true}")
    recipe = {"two_tower": "two_tower_1_6b"}.get(family, family)
    run_training(recipe, tmp_path / "before", overrides=fields, no_rich=True)
    tune = [
        *SHORT,
        f"model.name={tmp_path / 'before'}",
        f"dataset.name={dialogues / 'card.yaml'}",
        f"dataset.reading.special_concepts={dialogues / 'special.safetensors'}",
        "dataset.reading.suffix=model",
        "dataset.reading.target_suffix=end",
    ]
    assert run_training(f"{family}_finetune", overrides=tune, no_rich=True, dry_run=True) == 0
    assert run_training(f"{family}_finetune", tmp_path / "tuned", overrides=tune, no_rich=True) == 0
    before, after = (load_model(tmp_path / name).state_dict() for name in ("before", "tuned"))
    normalizer = {k: v for k, v in before.items() if "normalizer" in k}
    assert len(normalizer) == 2 and all(torch.equal(after[k], v) for k, v in normalizer.items())
    assert any(not torch.equal(after[k], v) for k, v in before.items())
    # Six steps at 1e-6 to 3e-4 stay near where the run began: the weights were taken over.
    assert all((after[k] - v).abs().max() < 0.01 for k, v in before.items())
    valid = read_metrics(tmp_path / "tuned" / "metrics" / "valid.jsonl")[-1]
    assert np.isfinite(valid["Loss"]) and "Retrieval@10 (unseen)" in valid


def test_guidance_in_objective_and_model_must_agree(tiny_corpus: Path, tmp_path: Path) -> None:
    overrides = [f"dataset.path={tiny_corpus}", "model.arch=toy_two_tower_diffusion_lcm", TINY["two_tower"], *SHORT]
    with pytest.raises(ConfigError, match=r"guidance_dropout` is 0\.15, .* not trained for guidance"):
        run_training("two_tower_1_6b", tmp_path / "run", overrides=overrides, no_rich=True)


def test_documents_longer_than_the_models_positions_are_refused_before_training(
    tiny_corpus: Path, tmp_path: Path
) -> None:
    overrides = [f"dataset.path={tiny_corpus}", "model.arch=toy_base_lcm", TINY["base_lcm"], *SHORT]
    overrides.append("model.config_overrides={max_seq_len: 40}")
    with pytest.raises(ConfigError, match=r"`dataset\.reading\.max_seq_len` \(48\) .* `max_seq_len` \(40\)"):
        run_training("base_lcm", tmp_path / "run", overrides=overrides, no_rich=True)


def test_a_recipe_without_a_model_says_what_to_set(dialogues: Path, tmp_path: Path) -> None:
    overrides = [f"dataset.name={dialogues / 'card.yaml'}", *SHORT]
    with pytest.raises(ConfigError, match=r"`model\.name`"):
        run_training("two_tower_finetune", tmp_path / "run", overrides=overrides, no_rich=True)
