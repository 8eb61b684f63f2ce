"""Two processes on a CPU: equal parameters on both, exact resume, one rank in place of two, and FSDP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lexalcm.checkpoints.load import load_model
from lexalcm.recipes.curves import read_metrics

DRIVER = """
import os, sys, torch
from lexalcm.recipes.task import LcmTrainTask
from lexalcm.cli.main import main

run = LcmTrainTask.run

def run_and_keep(self):
    run(self)
    state = self._trainer._model.module.state_dict()
    torch.save(state, os.path.join(sys.argv[1], f"rank_{os.environ['RANK']}.pt"))

LcmTrainTask.run = run_and_keep
sys.exit(main(sys.argv[2:]))
"""


COMMAND = ["-m", "lexalcm.cli"]


def driver(tmp_path: Path) -> list[str]:
    """The command, but every rank leaves its parameters in ``tmp_path``."""
    (tmp_path / "driver.py").write_text(DRIVER)
    return [str(tmp_path / "driver.py"), str(tmp_path)]


def torchrun(program: list[str], num_ranks: int, words: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *program, *words], capture_output=True, text=True, env=environment, timeout=120)


def test_two_ranks_train_alike_resume_exactly_and_leave_the_rest_to_one(
    tmp_path: Path, tiny_overrides: list[str]
) -> None:
    flat = [
        "lr_scheduler.config.warmup_share=0",
        "lr_scheduler.config.final_scale=1",
        "dataset.reading.concepts_per_batch=128",
    ]
    words = ["lcm", "train", "quickstart", str(tmp_path / "whole"), "--no-rich", "--config", *tiny_overrides, *flat]
    done = torchrun(driver(tmp_path), 2, words)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank_{r}.pt", weights_only=True) for r in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)

    parts = [*words[:3], str(tmp_path / "parts"), *words[4:]]
    assert torchrun(COMMAND, 2, [*parts, "regime.num_steps=8"]).returncode == 0
    assert torchrun(COMMAND, 2, parts).returncode == 0
    curves = [[e["Loss"] for e in read_metrics(tmp_path / name / "metrics/train.jsonl")] for name in ("whole", "parts")]
    assert curves[0] == curves[1] and len(curves[0]) == 12

    alone = torchrun(COMMAND, 1, [*parts, "regime.num_steps=16"])
    assert alone.returncode == 0, alone.stderr[-3000:]
    assert "goes on with 1 rank(s) instead of 2" in alone.stderr


# Dimensions that two ranks do not divide, so that shards are uneven. Pre1's are in test_many_ranks.py.
ODD_TWO_TOWER = [
    "model.family=two_tower_diffusion_lcm",
    "model.config_overrides=null",
    "model.config_overrides={sonar_embed_dim: 8, model_dim: 16, trained_with_cf_guidance: true, "
    "context_encoder: {num_attn_heads: 2, ffn_inner_dim: 33, scale_residual: 0.7, norm_order_style: post}, "
    "denoiser: {num_attn_heads: 2, ffn_inner_dim: 33, timestep_embed_dim: 16, mha_qkv_weight_normalization: true, "
    "enable_qk_layernorm: true, pos_embedding_style: learned, pre_denoiser: {weight_normalization: true}}}",
]


def test_sharded_training_validates_averages_and_saves_what_replicated_training_does(
    tmp_path: Path, tiny_overrides: list[str]
) -> None:
    odd = [*ODD_TWO_TOWER, "regime.num_steps=8"]
    for kind in ("ddp", "fsdp"):
        words = ["lcm", "train", "quickstart", str(tmp_path / kind), "--no-rich", "--config", *tiny_overrides, *odd]
        done = torchrun(COMMAND, 2, [*words, f"trainer.data_parallelism={kind}"])
        assert done.returncode == 0, done.stderr[-3000:]
    for file, figure in (("train", "Loss"), ("train", "Gradient Norm"), ("valid", "Loss"), ("valid", "Energy Score")):
        replicated, sharded = (
            [e[figure] for e in read_metrics(tmp_path / kind / "metrics" / f"{file}.jsonl")] for kind in ("ddp", "fsdp")
        )
        assert replicated == pytest.approx(sharded, rel=1e-5), figure
    states = [load_model(tmp_path / kind).state_dict() for kind in ("ddp", "fsdp")]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-5, atol=1e-5)
