"""A rerun in a run's folder: what may change, what is refused, and how the schedule follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexalcm.errors import ConfigError
from lexalcm.recipes.curves import read_metrics
from lexalcm.recipes.run import run_training


def train(folder: Path, overrides: list[str]) -> int:
    return run_training("quickstart", folder, overrides=overrides, no_rich=True)


def rates(folder: Path) -> list[float]:
    return [entry["Learning Rate"][0] for entry in read_metrics(folder / "metrics" / "train.jsonl")]


@pytest.mark.parametrize("schedule", [["lr_scheduler.config.decay=linear"], ["optimizer.name=muon"]])
def test_a_run_that_is_extended_follows_the_schedule_of_the_longer_one(
    tmp_path: Path, tiny_overrides: list[str], schedule: list[str]
) -> None:
    overrides = [*tiny_overrides, *schedule]
    train(tmp_path / "whole", [*overrides, "regime.num_steps=16"])
    train(tmp_path / "run", [*overrides, "regime.num_steps=8"])
    train(tmp_path / "run", [*overrides, "regime.num_steps=16"])
    assert rates(tmp_path / "run")[8:] == rates(tmp_path / "whole")[8:]


OF_FIXED_LENGTH = {
    "cosine_annealing": "{num_warmup_steps: 2}",
    "polynomial_decay": "{num_warmup_steps: 2}",
    "tri_stage": "{stage_ratio: [0.2, 0.4, 0.4]}",
}


@pytest.mark.parametrize("name", OF_FIXED_LENGTH)
def test_a_schedule_that_keeps_its_length_is_refused_by_name(
    tmp_path: Path, tiny_overrides: list[str], name: str
) -> None:
    overrides = [*tiny_overrides, f"lr_scheduler={{name: {name}, config: {OF_FIXED_LENGTH[name]}}}"]
    train(tmp_path / "run", [*overrides, "regime.num_steps=4"])
    with pytest.raises(ConfigError, match=rf"(?s)`regime\.num_steps` was 4, now 8, but the schedule `{name}` keeps"):
        train(tmp_path / "run", [*overrides, "regime.num_steps=8"])


def test_a_cosine_whose_length_is_given_can_be_gone_on_with(tmp_path: Path, tiny_overrides: list[str]) -> None:
    cosine = "lr_scheduler={name: cosine_annealing, config: {cycle_len: 20, num_warmup_steps: 2}}"
    overrides = [*tiny_overrides, cosine]
    train(tmp_path / "whole", [*overrides, "regime.num_steps=8"])
    train(tmp_path / "run", [*overrides, "regime.num_steps=4"])
    train(tmp_path / "run", [*overrides, "regime.num_steps=8"])
    assert rates(tmp_path / "run") == rates(tmp_path / "whole")


def test_a_model_that_was_not_written_in_time_is_written_by_the_next_run(
    tmp_path: Path, tiny_overrides: list[str]
) -> None:
    train(tmp_path / "run", [*tiny_overrides, "regime.num_steps=4"])
    metrics = (tmp_path / "run" / "metrics" / "train.jsonl").read_bytes()
    card = tmp_path / "run" / "model" / "card.yaml"
    written = card.read_text()
    for left in (None, written.replace("trained_steps: 4", "trained_steps: 2")):
        card.unlink()
        if left is not None:
            card.write_text(left)
        assert train(tmp_path / "run", [*tiny_overrides, "regime.num_steps=4"]) == 0
        assert card.read_text() == written
    assert (tmp_path / "run" / "metrics" / "train.jsonl").read_bytes() == metrics
