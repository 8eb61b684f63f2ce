"""A rerun in a run's folder: what may change, what is refused, and how the schedule follows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lexalcm.errors import ConfigError
from lexalcm.folder_lock import folder_lock
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


def test_checkpoints_of_another_run_are_not_gone_on_with(tmp_path: Path, tiny_overrides: list[str]) -> None:
    shared = tmp_path / "checkpoints"
    few = [*tiny_overrides, "regime.num_steps=4"]
    assert run_training("quickstart", tmp_path / "a", overrides=few, no_rich=True, checkpoint_dir=shared) == 0
    with pytest.raises(ConfigError, match=r"(?s)holds checkpoints \(up to step 4\), but .*b has no config\.yaml"):
        run_training("quickstart", tmp_path / "b", overrides=few, no_rich=True, checkpoint_dir=shared)


def test_two_runs_in_one_folder_at_a_time_are_refused(tmp_path: Path, tiny_overrides: list[str]) -> None:
    with folder_lock(tmp_path / "run" / "checkpoints" / ".lock"):
        with pytest.raises(ConfigError, match=rf"at work in .*checkpoints \(process {os.getpid()} on"):
            train(tmp_path / "run", tiny_overrides)


@pytest.mark.parametrize(
    "field", ["regime.score_metric=cosine", "validation.max_documents=5", "dataset.valid_split=train"]
)
def test_scores_of_two_kinds_are_not_mixed(tmp_path: Path, tiny_overrides: list[str], field: str) -> None:
    scored = [*tiny_overrides, "regime.score_metric=loss"]
    train(tmp_path / "run", [*scored, "regime.num_steps=4"])
    with pytest.raises(ConfigError, match=rf"holds a run of another recipe: `{field.partition('=')[0]}` was"):
        train(tmp_path / "run", [*scored, "regime.num_steps=8", field])


def test_a_model_whose_weights_are_gone_is_written_again(tmp_path: Path, tiny_overrides: list[str]) -> None:
    few = [*tiny_overrides, "regime.num_steps=4"]
    train(tmp_path / "run", few)
    (tmp_path / "run" / "model" / "model.safetensors").unlink()
    assert train(tmp_path / "run", few) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["output_dir", "checkpoint_dir"])
def test_a_url_is_no_folder_of_a_run(tmp_path: Path, tiny_overrides: list[str], name: str) -> None:
    folders = {"output_dir": tmp_path / "run", "checkpoint_dir": tmp_path / "c", name: Path("s3://bucket/run")}
    with pytest.raises(ConfigError, match="s3:/bucket/run is a URL"):
        run_training("quickstart", overrides=tiny_overrides, no_rich=True, **folders)
