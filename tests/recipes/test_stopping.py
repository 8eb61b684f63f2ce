"""Signals: the first ends a run behind the step under way, with a checkpoint; the second ends it at once."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fairseq2.recipe  # noqa: F401 - fairseq2.validator, imported before it, would import itself half-way (0.8.1)
import pytest
import torch
from fairseq2.validator import StandardValidator

from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.recipes import stopping
from lexalcm.recipes.curves import read_metrics
from lexalcm.recipes.run import run_training
from lexalcm.recipes.stopping import StopSignals
from lexalcm.training.train_unit import LcmTrainUnit
from tests.end_to_end.killing import Run, finish


@pytest.fixture
def signal_in_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function: this process gets a signal in the middle of a step, given by their numbers."""

    def arm(number: int, step: int) -> None:
        process_batch = LcmTrainUnit.process_batch

        def interrupted(self: LcmTrainUnit, batch: Any, metric_bag: Any) -> Any:
            if self.step_nr == step:
                os.kill(os.getpid(), number)
            return process_batch(self, batch, metric_bag)

        monkeypatch.setattr(LcmTrainUnit, "process_batch", interrupted)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    yield arm
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def train(folder: Path, overrides: list[str]) -> int:
    return run_training("quickstart", folder, overrides=overrides, no_rich=True)


def losses(folder: Path) -> list[float]:
    return [entry["Loss"] for entry in read_metrics(folder / "metrics" / "train.jsonl")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_ends_the_run_with_a_checkpoint_of_the_step_under_way(
    tmp_path: Path, tiny_overrides: list[str], signal_in_step: Any, number: int, code: int
) -> None:
    signal_in_step(number, 6)
    assert train(tmp_path / "run", tiny_overrides) == code
    assert saved_steps(tmp_path / "run" / "checkpoints")[-1] == 6
    assert len(losses(tmp_path / "run")) == 6
    # Not the time to validate, nor to write a model of a run that is to go on.
    assert [entry["Step"] for entry in read_metrics(tmp_path / "run" / "metrics" / "valid.jsonl")] == [4]
    assert not (tmp_path / "run" / "model").exists()
    log = (tmp_path / "run" / "logs" / "rank_0.log").read_text()
    assert signal.Signals(number).name in log and "has reached the run" in log and "goes on from step 6" in log


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(
    tmp_path: Path, tiny_overrides: list[str], signal_in_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path / "whole", tiny_overrides) == 0
    with monkeypatch.context():
        signal_in_step(signal.SIGTERM, 5)
        assert train(tmp_path / "run", tiny_overrides) == 143
    monkeypatch.undo()
    assert train(tmp_path / "run", tiny_overrides) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_signal_in_the_last_step_ends_a_run_that_is_finished(
    tmp_path: Path, tiny_overrides: list[str], signal_in_step: Any
) -> None:
    signal_in_step(signal.SIGTERM, 12)
    assert train(tmp_path / "run", tiny_overrides) == 0
    assert (tmp_path / "run" / "model" / "card.yaml").is_file()


def test_a_step_that_was_not_taken_counts_when_the_run_stops_in_it(
    tmp_path: Path, tiny_overrides: list[str], signal_in_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_in_step(signal.SIGTERM, 6)
    process_batch = LcmTrainUnit.process_batch

    def spoilt(self: LcmTrainUnit, batch: Any, metric_bag: Any) -> Any:
        loss, targets = process_batch(self, batch, metric_bag)
        return loss * (float("nan") if self.step_nr == 6 else 1.0), targets

    monkeypatch.setattr(LcmTrainUnit, "process_batch", spoilt)
    assert train(tmp_path / "run", tiny_overrides) == 143
    step = saved_steps(tmp_path / "run" / "checkpoints")[-1]
    state = torch.load(tmp_path / "run" / "checkpoints" / f"step_{step}" / "trainer" / "rank_00.pt", weights_only=True)
    assert state["_step_nr"] == state["_lr_scheduler"]["last_epoch"] == step == 6


def test_a_signal_during_validation_ends_the_run_behind_the_next_step(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = StandardValidator.run

    def interrupted(self: StandardValidator, train_step_nr: int | None = None) -> float | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return run(self, train_step_nr)

    monkeypatch.setattr(StandardValidator, "run", interrupted)
    assert train(tmp_path / "run", tiny_overrides) == 143
    # The validation of step 4 was not broken off, and what it found is kept.
    assert [entry["Step"] for entry in read_metrics(tmp_path / "run" / "metrics" / "valid.jsonl")] == [4]
    assert saved_steps(tmp_path / "run" / "checkpoints")[-1] == 5


def test_the_handler_waits_for_no_lock(capfd: pytest.CaptureFixture[str]) -> None:
    # What it interrupts may be a line of the log or a progress bar being written, whose locks other threads want too.
    class Held(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise AssertionError("logged")

    held = Held()
    logging.getLogger().addHandler(held)
    logging.getLogger("fairseq2").addHandler(held)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        logging.getLogger().removeHandler(held)
        logging.getLogger("fairseq2").removeHandler(held)
    assert signals.exit_code == 143
    assert "SIGTERM: the run ends after this step, with a checkpoint; again: at once." in capfd.readouterr().err


LONG = ["regime.num_steps=100000", "regime.checkpoint_every_n_steps=100000", "regime.validate_every_n_steps=100000"]


def wait_for_steps(run: Run, folder: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(read_metrics(folder / "metrics" / "train.jsonl")) < count:
        assert time.monotonic() < end, run.output()[-3000:]
        time.sleep(0.05)


def test_a_second_signal_ends_the_run_at_once(tmp_path: Path, tiny_overrides: list[str]) -> None:
    overrides = [*tiny_overrides, *LONG, "dataset.reading.prefetch=0"]
    run = Run(words(tmp_path / "run", overrides), tmp_path / "log", point="asleep in a step:3")
    wait_for_steps(run, tmp_path / "run", 2)
    run.send(signal.SIGTERM)
    time.sleep(0.5)
    run.send(signal.SIGTERM)
    # As the system tells it of a process that a signal has ended; a shell shows 143.
    assert run.wait(20) == [-signal.SIGTERM]
    assert saved_steps(tmp_path / "run" / "checkpoints") == []


def test_ranks_stop_together_when_one_of_them_is_told_to(tmp_path: Path, tiny_overrides: list[str]) -> None:
    overrides = [*tiny_overrides, *LONG, "dataset.reading.concepts_per_batch=128"]
    run = Run(words(tmp_path / "run", overrides), tmp_path / "log", num_ranks=2)
    wait_for_steps(run, tmp_path / "run", 3)
    run.send(signal.SIGUSR1, rank=1)
    assert run.wait(60) == [143, 143], run.output()[-3000:]
    (step,) = saved_steps(tmp_path / "run" / "checkpoints")
    overrides[overrides.index("regime.num_steps=100000")] = f"regime.num_steps={step + 2}"
    finish(words(tmp_path / "run", overrides), tmp_path / "again", num_ranks=2)
    assert len(losses(tmp_path / "run")) == step + 2


def words(folder: Path, overrides: list[str]) -> list[str]:
    return ["lcm", "train", "quickstart", str(folder), "--no-rich", "--config", *overrides]


def test_what_torchrun_repeats_is_the_same_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with StopSignals() as signals:
        # Ctrl-C reaches all processes of a terminal, and torchrun sends SIGTERM to its own at once.
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_under_torchrun_too_a_later_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.setattr(stopping, "_ECHO_SECONDS", 0.0)
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended == [143]


def test_what_is_ignored_on_purpose_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does it for what a script puts in the background
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.exit_code == 0
    finally:
        signal.signal(signal.SIGINT, before)
