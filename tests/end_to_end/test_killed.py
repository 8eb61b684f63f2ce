"""A run that is killed anywhere, and begun again by the same command, ends as if it had never been disturbed: the same
losses, weights, averages and documents, to the last bit."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.end_to_end.killing import POINTS, Run, assert_same, finish, result

DEMANDING = [
    "regime.num_steps=18",
    "regime.checkpoint_every_n_steps=3",
    "regime.validate_every_n_steps=9",
    "regime.keep_last_n_checkpoints=2",
    "trainer.grad_accumulation.num_batches=2",
    "objective.config.noise_draws=2",
    "dataset.reading.prefetch=3",
    "dataset.reading.concepts_per_batch=128",
]
"""Read ahead, micro-batches, several draws; the recipe keeps an average of the weights. An epoch has two steps."""

TELLING = [
    "while a checkpoint's file is written:2",
    "in a step:11",
    "in a step:1",  # twice in a row
    "at an epoch's end:1",
    "while metrics are written:4",
    "while the configuration is written:1",
    "while the model is written:1",
]
EVERY_POINT = [
    "in a step:3",  # before the first checkpoint
    *TELLING[:-1],
    "behind an epoch's end:2",
    "behind a checkpoint:1",
    "before a checkpoint is named:1",
    "while an old checkpoint is deleted:1",
    "while the model is written:1",
    "while the model is written:2",
]


def words(folder: Path, overrides: list[str]) -> list[str]:
    return ["lcm", "train", "quickstart", str(folder), "--no-rich", "--config", *overrides]


def kill_at(points: list[str], tmp_path: Path, overrides: list[str], *, num_ranks: int = 1) -> None:
    """Kills a run at one point after the other, lets it end, and compares it with one that was left alone."""
    finish(words(tmp_path / "whole", overrides), tmp_path / "whole.log", num_ranks=num_ranks)
    killed = words(tmp_path / "killed", overrides)
    for number, point in enumerate(points):
        run = Run(killed, tmp_path / f"{number}.log", num_ranks=num_ranks, point=point)
        # The rank that writes the model is killed alone; what ranks see of one that is gone is an error.
        codes = run.wait()
        assert -9 in codes and set(codes) <= {-9, 0, 1}, f"{point}\n{codes}\n{run.output()[-3000:]}"
    finish(killed, tmp_path / "last.log", num_ranks=num_ranks)
    assert_same(result(tmp_path / "whole"), result(tmp_path / "killed"))
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    # Half of one is left where its deletion was broken off, and nowhere else.
    half_deleted = [point for point in points if "deleted" in point]
    assert len(list((tmp_path / "killed" / "checkpoints").glob("*.damaged*"))) == len(half_deleted)


def test_a_run_survives_being_killed_where_it_hurts(tmp_path: Path, tiny_overrides: list[str]) -> None:
    kill_at(TELLING, tmp_path, [*tiny_overrides, *DEMANDING])


@pytest.mark.long
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_run_survives_being_killed_at_every_point(tmp_path: Path, tiny_overrides: list[str], num_ranks: int) -> None:
    assert {point.partition(":")[0] for point in EVERY_POINT} == set(POINTS)
    kill_at(EVERY_POINT, tmp_path, [*tiny_overrides, *DEMANDING], num_ranks=num_ranks)


def test_ranks_that_are_killed_go_on_together(tmp_path: Path, tiny_overrides: list[str]) -> None:
    few = ["regime.num_steps=8", "regime.validate_every_n_steps=8", "dataset.reading.concepts_per_batch=32"]
    few.append("dataset.reading.max_seq_len=16")
    kill_at(["in a step:9", "at an epoch's end:1"], tmp_path, [*tiny_overrides, *DEMANDING, *few], num_ranks=2)


SEEDS = [int(seed) for seed in os.environ.get("LEXALCM_KILL_SEEDS", "1,2").split(",")]
"""More are asked for by the variable."""


@pytest.mark.long
@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_twenty_random_moments_are_survived(
    tmp_path: Path, tiny_overrides: list[str], seed: int, num_ranks: int
) -> None:
    rng = random.Random(seed)
    overrides = [*tiny_overrides, *DEMANDING, "regime.num_steps=90", "regime.validate_every_n_steps=30"]
    overrides += ["dataset.reading.max_seq_len=16", "dataset.reading.concepts_per_batch=32"]
    whole = finish(words(tmp_path / "whole", overrides), tmp_path / "whole.log", num_ranks=num_ranks)
    assert "End of epoch 2" in whole.output()
    killed, number = 0, 0
    folder = tmp_path / "killed"
    while killed < 20:
        number += 1
        run = Run(words(folder, overrides), tmp_path / f"{number}.log", num_ranks=num_ranks)
        try:
            run.wait_at_most(rng.uniform(0.2, 6.0 * num_ranks))
        except TimeoutError:
            run.kill()
            if any(code != 0 for code in run.wait()):
                killed += 1
                continue
        # It came to its end: the next kills are those of another run.
        assert_same(result(tmp_path / "whole"), result(folder))
        folder = tmp_path / f"killed_{number}"
    finish(words(folder, overrides), tmp_path / "last.log", num_ranks=num_ranks)
    assert_same(result(tmp_path / "whole"), result(folder))
