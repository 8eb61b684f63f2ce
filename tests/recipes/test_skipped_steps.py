"""A run whose loss or gradient is not finite: what it says, and where it ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.data.batch import ConceptBatch
from lexalcm.diffusion.objective import LossTerms, Objective
from lexalcm.errors import ConfigError, RunError
from lexalcm.recipes.curves import read_metrics
from lexalcm.recipes.run import run_training
from lexalcm.training.train_unit import LcmTrainUnit
from tests.end_to_end.killing import Run


def train(folder: Path, overrides: list[str]) -> int:
    return run_training("quickstart", folder, overrides=overrides, no_rich=True)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: the loss of some steps is NaN, that of the first position alone, or its gradient only is."""
    process_batch, loss_of = LcmTrainUnit.process_batch, Objective.loss

    def arm(steps: range, *, where: str = "loss") -> list[str]:
        current = [0]
        seen: list[str] = []

        def noted(self: LcmTrainUnit, batch: ConceptBatch, metric_bag: Any) -> Any:
            current[0] = self.step_nr
            if self.step_nr in steps and batch.ids is not None:
                seen[:] = batch.ids.names()
            loss, targets = process_batch(self, batch, metric_bag)
            if where == "gradient" and self.step_nr in steps:
                loss.register_hook(lambda gradient: gradient * float("nan"))
            return loss, targets

        def spoilt(self: Objective, predicted: Tensor, *args: Any) -> LossTerms:
            if where == "loss" and current[0] in steps:
                predicted = predicted.clone()
                predicted[..., 0, :] = float("nan")
            return loss_of(self, predicted, *args)

        monkeypatch.setattr(LcmTrainUnit, "process_batch", noted)
        monkeypatch.setattr(Objective, "loss", spoilt)
        return seen

    return arm


def test_a_step_whose_loss_is_nan_is_not_taken_and_its_document_named(
    tmp_path: Path, tiny_overrides: list[str], spoil: Any
) -> None:
    names = spoil(range(5, 6))
    assert train(tmp_path / "run", tiny_overrides) == 0
    metrics = read_metrics(tmp_path / "run" / "metrics" / "train.jsonl")
    assert len(metrics) == 12
    # Nothing is told of a step that was not taken, least of all a loss of 0.
    assert ["Loss" in entry and "Cosine to Target" in entry for entry in metrics] == [
        step != 5 for step in range(1, 13)
    ]
    assert "Steps Not Taken" not in metrics[3] and metrics[4]["Steps Not Taken"] == metrics[-1]["Steps Not Taken"] == 1
    assert all(p.isfinite().all() for p in load_model(tmp_path / "run").parameters())
    log = (tmp_path / "run" / "logs" / "rank_0.log").read_text()
    # The one whose position it was, not the others of the batch.
    assert f"Step 5 was not taken: its loss is not finite. Documents {names[0]}." in log.replace("\n", " ")


def test_where_the_gradient_alone_is_not_finite_all_documents_of_the_step_are_named(
    tmp_path: Path, tiny_overrides: list[str], spoil: Any
) -> None:
    names = spoil(range(5, 6), where="gradient")
    assert train(tmp_path / "run", tiny_overrides) == 0
    log = (tmp_path / "run" / "logs" / "rank_0.log").read_text().replace("\n", " ")
    assert "its gradient is not finite" in log and f"{names[0]}, {names[1]}" in log and "more." in log


def test_too_many_in_a_row_end_the_run_by_step_document_and_checkpoint(
    tmp_path: Path, tiny_overrides: list[str], spoil: Any
) -> None:
    names = spoil(range(7, 100))
    with pytest.raises(RunError) as caught:
        train(tmp_path / "run", [*tiny_overrides, "trainer.max_nonfinite_steps=3"])
    told = str(caught.value)
    assert "step 9 is not finite, as it was in 3 step(s) in a row" in told and names[0] in told
    # The one of step 8 was saved with the weights of step 6: no step between has changed them.
    assert f"The last good checkpoint: step 8 in {tmp_path / 'run' / 'checkpoints'}" in told
    assert len(told.splitlines()) == 3
    file = tmp_path / "run" / "checkpoints" / "step_8" / "model" / "pp_00" / "tp_00" / "sdp_00.pt"
    assert saved_steps(tmp_path / "run" / "checkpoints")[-1] == 8
    assert all(x.isfinite().all() for x in torch.load(file, weights_only=True).values() if x.is_floating_point())


def test_a_limit_below_one_is_refused(tmp_path: Path, tiny_overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"`trainer\.max_nonfinite_steps` must be at least 1"):
        train(tmp_path / "run", [*tiny_overrides, "trainer.max_nonfinite_steps=0"])


def test_ranks_skip_a_step_together_and_the_first_names_the_documents_of_the_others(
    tmp_path: Path, tiny_overrides: list[str]
) -> None:
    words = ["lcm", "train", "quickstart", str(tmp_path / "run"), "--no-rich", "--config", *tiny_overrides]
    words += ["regime.num_steps=5", "regime.validate_every_n_steps=100", "regime.checkpoint_every_n_steps=100"]
    run = Run(words, tmp_path / "log", num_ranks=2, point="a loss of rank 1 is not finite:3")
    assert run.wait() == [0, 0], run.output()[-3000:]
    metrics = read_metrics(tmp_path / "run" / "metrics" / "train.jsonl")
    assert [entry.get("Steps Not Taken", 0) for entry in metrics] == [0, 0, 1, 1, 1]
    # That of the step alone is left out, and no other.
    assert ["Gradient Norm" in entry for entry in metrics] == [True, True, False, True, True]
    log = (tmp_path / "run" / "logs" / "rank_0.log").read_text().replace("\n", " ")
    assert re.search(r"Step 3 was not taken: its loss is not finite\. Documents [^,]*part-0\.parquet:\d+:\d+\.", log)
    assert all(p.isfinite().all() for p in load_model(tmp_path / "run").parameters())
