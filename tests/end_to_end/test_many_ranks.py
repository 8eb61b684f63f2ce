"""Whatever the number of ranks, and however they share the model, a step is the step of one process on the same batches.

Models have dimensions that neither 2 nor 3 divide, and data lie so that ranks have unlike shares and run out of them at
unlike times.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lexalcm.checkpoints.load import load_model
from lexalcm.cli.main import main
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.recipes.curves import read_metrics
from tests.end_to_end.rank_driver import Run, ended_with, run_all

LENGTHS = {
    "one_long_document": [90] + [3, 2, 1, 4] * 4,
    "one_document_a_rank_but_the_last": [5, 7],
    "documents_of_one_concept": [1] * 9 + [6, 2],
}
"""Concepts of the documents to train on."""

MODELS = {
    "pre1": [
        "model.arch=null",
        "model.config_overrides={concept_dim: 8, model_dim: 60, num_context_layers: 1, num_denoiser_layers: 2, "
        "num_heads: 3, ffn_dim: 33, timestep_dim: 8, linear_context: 2}",
    ],
    "two_tower": [
        "model.family=two_tower_diffusion_lcm",
        "model.arch=null",
        "model.config_overrides=null",
        "model.config_overrides={sonar_embed_dim: 8, model_dim: 60, trained_with_cf_guidance: true, "
        "context_encoder: {num_attn_heads: 3, ffn_inner_dim: 33, dropout_p: 0, final_dropout_p: 0, scale_residual: 0.7, "
        "norm_order_style: post}, "
        "denoiser: {num_attn_heads: 3, ffn_inner_dim: 33, dropout_p: 0, final_dropout_p: 0, timestep_embed_dim: 60, "
        "mha_qkv_weight_normalization: true, enable_qk_layernorm: true, pos_embedding_style: learned, "
        "pre_denoiser: {weight_normalization: true}}}",
    ],
    "base_lcm": [
        "model.family=base_lcm",
        "model.arch=null",
        "model.config_overrides=null",
        "model.config_overrides={sonar_embed_dim: 8, model_dim: 60, normalizer: {dim: 8}, "
        "lcm: {num_attn_heads: 3, ffn_inner_dim: 33, dropout_p: 0, final_dropout_p: 0}}",
        "objective.name=meta_base_objective",
        "validation.num_samples=0",
    ],
}
"""Without dropout: ranks draw it from generators of their own."""

TINY_RUN = [
    "model.config_overrides={context_dropout_p: 0, bridge_dropout_p: 0, denoiser_dropout_p: 0}",
    # Where the true gradient is 0, as that of a key's bias, Adam's usual epsilon would make steps of what rounding left.
    "optimizer.config.eps=0.0001",
    "dataset.reading.max_seq_len=16",
    "dataset.reading.concepts_per_batch=32",
    "regime.num_steps=8",
    "regime.validate_every_n_steps=4",
    "regime.checkpoint_every_n_steps=4",
    "regime.publish_metrics_every_n_steps=1",
    "validation.num_samples=2",
    "validation.sampler.config={num_steps: 2}",
    "common.metric_recorders.tensorboard.enabled=false",
    "gang.timeout=1",
]

FSDP = ["trainer.data_parallelism=fsdp"]


def tiny(folder: Path, data: str, model: str, *more: str) -> list[str]:
    """Overrides of a run on freshly written data."""
    rng = np.random.default_rng(0)
    for split, lengths in (("train", LENGTHS[data]), ("validation", [5, 3, 7, 4] * 5)):
        documents = [NewDocument([f"{i}" for i in range(n)], rng.normal(size=(n, 8))) for n in lengths]
        file = folder / "data" / f"split={split}" / "part-0.parquet"
        write_documents(file, documents, dtype="float32", concepts_per_row_group=40)
    return [f"dataset.path={folder / 'data'}", *TINY_RUN, *MODELS[model], *more]


def curves(folder: Path) -> dict[str, list[float]]:
    """All that is measured in training and validation, but times and what follows from them."""
    found = {}
    for file in ("train", "valid"):
        entries = read_metrics(folder / "metrics" / f"{file}.jsonl")
        for name, value in entries[-1].items():
            if isinstance(value, float) and not any(word in name for word in ("Time", "Second", "FLOP")):
                found[f"{file}: {name}"] = [entry[name] for entry in entries]
    return found


def saved_models(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The run's model as who uses it loads it, and what lies beside it: averaged and raw weights, each in one file."""
    files = {file.name: load_file(file) for file in sorted((folder / "model").glob("*.safetensors"))}
    return {"loaded": load_model(folder).state_dict(), **files}


def check_same(folder: Path, runs: list[Run]) -> None:
    """Compares every run with the first."""
    expected, models = curves(folder / runs[0].name), saved_models(folder / runs[0].name)
    assert len(expected["train: Loss"]) == 8 and len(expected["valid: Loss"]) == 2
    for run in runs[1:]:
        for name, curve in curves(folder / run.name).items():
            assert curve == pytest.approx(expected[name], rel=1e-5, abs=1e-6), f"{run.name}, {name}"
        for file, state in saved_models(folder / run.name).items():
            assert state.keys() == models[file].keys()
            for name, value in state.items():
                torch.testing.assert_close(value, models[file][name], rtol=1e-5, atol=1e-5, msg=f"{run.name}, {name}")


def check_ranks_agree(folder: Path, run: Run) -> None:
    """Replicas are equal to the last bit; shards, and buffers beside them, make the model that was saved."""
    files = sorted((folder / run.name / "model").glob("*.safetensors"))
    raw = load_file(files[-1])  # model.safetensors, or model_raw.safetensors behind the averaged one
    ranks = [ended_with(folder / run.name, rank)["state"] for rank in range(run.num_ranks)]
    for name, value in raw.items():
        parts = [state[name] for state in ranks]
        if parts[0].shape != value.shape:
            assert torch.equal(torch.cat(parts), value), name
        else:
            assert all(torch.equal(part, value) for part in parts), name


def runs_of(overrides: list[str], num_ranks: int) -> list[Run]:
    """One process, replicas, and shards."""
    return [
        Run("alone", overrides, num_readers=num_ranks),
        Run("ddp", overrides, num_ranks),
        Run("fsdp", [*overrides, *FSDP], num_ranks),
    ]


@pytest.fixture(scope="module")
def three_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """Trained in each way, where the long document is one rank's, and the others are without data in every last step."""
    folder = tmp_path_factory.mktemp("three_ranks")
    accumulate = "trainer.grad_accumulation.num_batches=2"
    runs = runs_of(tiny(folder, "one_long_document", "pre1", accumulate), 3)
    run_all(folder, runs)
    return folder, runs


def test_ranks_that_run_out_of_data_take_the_steps_of_one_process(three_ranks: tuple[Path, list[Run]]) -> None:
    folder, runs = three_ranks
    check_same(folder, runs)
    for run in runs[1:]:
        num_empty = [ended_with(folder / run.name, rank)["num_empty"] for rank in range(3)]
        assert 0 < max(num_empty) < 2 * 8, num_empty


def test_ranks_end_with_the_model_that_is_saved(three_ranks: tuple[Path, list[Run]]) -> None:
    folder, runs = three_ranks
    for run in runs[1:]:
        check_ranks_agree(folder, run)


def test_the_model_of_shards_is_exported_and_generates_in_one_process(
    three_ranks: tuple[Path, list[Run]], tmp_path: Path
) -> None:
    folder, _ = three_ranks
    assert main(["lcm", "export", str(folder / "fsdp"), str(tmp_path / "exported")]) == 0
    save_file({"a": torch.randn(3, 8), "b": torch.randn(1, 8)}, tmp_path / "prompts.safetensors")
    made = []
    for model in (folder / "fsdp", tmp_path / "exported", folder / "ddp"):
        out = tmp_path / f"{len(made)}.jsonl"
        words = [
            "--input",
            tmp_path / "prompts.safetensors",
            "--output",
            out,
            "--decoder",
            "none",
            "--max-sentences",
            2,
        ]
        assert main(["lcm", "generate", *map(str, [model, *words, "--sampler", "plain_sampler", "--steps", 2])]) == 0
        made.append([np.asarray(json.loads(line)["concepts"]) for line in out.read_text().splitlines()])
    sharded, exported, replicated = made
    assert len(sharded) == 2 and all(np.array_equal(a, b) for a, b in zip(sharded, exported, strict=True))
    for ours, theirs in zip(sharded, replicated, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


DRAWS = "objective.config.noise_draws=2"
ACCUMULATE = "trainer.grad_accumulation.num_batches=3"
PADDED = "dataset.reading.pack=false"


@pytest.mark.long
@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize(
    ("model", "data", "more"),
    [
        ("pre1", "one_document_a_rank_but_the_last", [DRAWS]),
        ("pre1", "documents_of_one_concept", [ACCUMULATE, "ema.decay=null", "objective.config.weighting=clamp_snr"]),
        ("pre1", "one_long_document", [PADDED, DRAWS, "objective.config.context_noise=0.1"]),
        ("two_tower", "one_long_document", [DRAWS, "objective.config.guidance_drop_rule=meta_compatible"]),
        ("two_tower", "documents_of_one_concept", [ACCUMULATE]),
        ("base_lcm", "one_long_document", [ACCUMULATE]),
        ("base_lcm", "documents_of_one_concept", ["ema.decay=null"]),
    ],
)
def test_ranks_take_the_steps_of_one_process(
    model: str, data: str, more: list[str], num_ranks: int, tmp_path: Path
) -> None:
    runs = runs_of(tiny(tmp_path, data, model, *more), num_ranks)
    run_all(tmp_path, runs)
    check_same(tmp_path, runs)
    for run in runs[1:]:
        check_ranks_agree(tmp_path, run)


RECOMPUTED = "trainer.activation_checkpointing.mode=layerwise"


@pytest.mark.long
@pytest.mark.parametrize("more", [["granularity=model"], ["reshard_after_forward=false"]])
def test_ways_to_shard_take_the_steps_of_one_process(more: list[str], tmp_path: Path) -> None:
    overrides = tiny(tmp_path, "one_long_document", "pre1", RECOMPUTED)
    shards = [*overrides, *FSDP, *(f"trainer.fsdp.{word}" for word in more)]
    runs = [Run("alone", overrides, num_readers=3), Run("fsdp", shards, 3)]
    run_all(tmp_path, runs)
    check_same(tmp_path, runs)
    check_ranks_agree(tmp_path, runs[1])


@pytest.mark.long
def test_shards_within_a_node_and_replicas_over_nodes_take_the_steps_of_one_process(tmp_path: Path) -> None:
    overrides = tiny(tmp_path, "one_long_document", "pre1")
    hybrid = Run("hybrid", [*overrides, *FSDP, "trainer.fsdp.hybrid=true"], 4, ranks_a_node=2)
    runs = [Run("alone", overrides, num_readers=4), hybrid]
    run_all(tmp_path, runs)
    check_same(tmp_path, runs)


@pytest.mark.long
@pytest.mark.parametrize("model", ["pre1", "two_tower"])
def test_compiled_layers_that_are_recomputed_take_the_same_steps(model: str, tmp_path: Path) -> None:
    overrides = tiny(tmp_path, "one_long_document", model, "validation.num_samples=0", "gang.timeout=4")
    compiled = [*overrides, RECOMPUTED, "model.compile=true", "model.compile_options.backend=aot_eager"]
    runs = [
        Run("alone", overrides, num_readers=2),
        Run("compiled", compiled, num_readers=2),
        Run("ddp", compiled, 2),
        Run("fsdp", [*compiled, *FSDP], 2),
    ]
    run_all(tmp_path, runs)
    check_same(tmp_path, runs)
