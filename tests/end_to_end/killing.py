"""Training runs in processes of their own that are killed, as kill -9 does it, at a named point or after some time.

A server process imports everything once and forks: a run starts in a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.recipes.curves import read_metrics
from tests.end_to_end.torchrun_variables import torchrun_variables

_SECONDS: float = 120.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.end_to_end.killing", "lexalcm.recipes.run"])


def die() -> None:
    """Ends this process without any chance to tidy up."""
    os.kill(os.getpid(), signal.SIGKILL)


def at(
    count: int,
    owner: Any,
    name: str,
    *,
    before: Callable[..., Any] | None = None,
    after: bool = False,
    when: Callable[..., bool] = lambda *args, **kwargs: True,
) -> None:
    """Makes the process die in the ``count``-th call of a method.

    :param before: Called with the method's arguments instead of it, to leave something half done.
    :param after: Die when the method is done.
    :param when: Tells from the arguments whether a call counts.
    """
    original = getattr(owner, name)
    calls = [0]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls[0] += when(*args, **kwargs)
        if calls[0] < count or not when(*args, **kwargs):
            return original(*args, **kwargs)
        if before is not None:
            before(*args, **kwargs)
        if after:
            original(*args, **kwargs)
        die()

    setattr(owner, name, wrapper)


def _half_a_checkpoint_file(dumper: Any, data: Any, file: Path, options: Any = None) -> None:
    torch.save(dict(data), file)
    os.truncate(file, file.stat().st_size // 2)


def _half_a_folder(system: Any, path: Path) -> None:
    for file in sorted(file for file in path.rglob("*") if file.is_file())[::2]:
        file.unlink()


def _half_a_line(recorder: Any, category: str, values: Any, step_nr: int | None = None) -> None:
    stream = recorder._get_stream(category)
    stream.write('{"Time": "2026-01-01", "Step": 1')
    stream.flush()


def _half_a_yaml(dumper: Any, obj: Any, output: Any) -> None:
    Path(output).write_text("model:\n  family: lexa")


def install(point: str) -> None:
    """Arms a point, ``name:count``; see the names in :data:`POINTS`."""
    name, _, count = point.partition(":")
    others = {"asleep in a step": _arm_sleep, "a loss of rank 1 is not finite": _arm_poison}
    (others.get(name) or POINTS[name])(int(count or 1))


def _arm_step(count: int) -> None:
    from lexalcm.training.train_unit import LcmTrainUnit

    at(count, LcmTrainUnit, "process_batch")


def _arm_sleep(count: int) -> None:
    from lexalcm.training.train_unit import LcmTrainUnit

    at(count, LcmTrainUnit, "process_batch", before=lambda *args: time.sleep(3600))


def _arm_poison(count: int) -> None:
    """Not a death: the loss of rank 1 is not finite in one step, at its first position."""
    from lexalcm.diffusion.objective import Objective

    loss = Objective.loss
    calls = [0]

    def poisoned(self: Any, predicted: Any, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == count and os.environ.get("RANK") == "1":
            predicted = predicted.clone()
            predicted[..., 0, :] = float("nan")
        return loss(self, predicted, *args)

    Objective.loss = poisoned  # type: ignore[method-assign]


def _arm_saving(count: int) -> None:
    from lexalcm.recipes.checkpoint_files import RestrictedDumper

    at(count, RestrictedDumper, "dump", before=_half_a_checkpoint_file)


def _arm_commit(count: int, *, after: bool = False) -> None:
    from fairseq2.checkpoint import StandardCheckpointManager

    at(count, StandardCheckpointManager, "_commit_checkpoint", after=after)


def _arm_deletion(count: int) -> None:
    from fairseq2.file_system import GlobalFileSystem

    at(count, GlobalFileSystem, "remove_directory", before=_half_a_folder, when=lambda system, path: path.exists())


def _arm_metrics(count: int) -> None:
    from fairseq2.metrics.recorders import JsonlMetricRecorder

    at(count, JsonlMetricRecorder, "record_metric_values", before=_half_a_line)


def _arm_epoch_end(count: int, *, after: bool = False) -> None:
    from lexalcm.data.reader import ConceptReader

    at(count, ConceptReader, "reset", after=after)


def _arm_yaml(count: int) -> None:
    from fairseq2.utils.yaml import RuamelYamlDumper

    at(count, RuamelYamlDumper, "dump", before=_half_a_yaml)


def _arm_export(count: int) -> None:
    from lexalcm.checkpoints import export

    at(count, export, "_write")


POINTS: dict[str, Callable[[int], None]] = {
    "in a step": _arm_step,
    "while a checkpoint's file is written": _arm_saving,
    "before a checkpoint is named": _arm_commit,
    "behind a checkpoint": lambda count: _arm_commit(count, after=True),
    "while an old checkpoint is deleted": _arm_deletion,
    "while metrics are written": _arm_metrics,
    "at an epoch's end": _arm_epoch_end,
    "behind an epoch's end": lambda count: _arm_epoch_end(count, after=True),
    "while the configuration is written": _arm_yaml,
    "while the model is written": _arm_export,
}


def _run(words: list[str], variables: dict[str, str], point: str | None, log: str) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    os.environ.update({"OMP_NUM_THREADS": "1", "FAIRSEQ2_DEVICE": "cpu", **variables})
    torch.set_num_threads(1)
    if point is not None:
        install(point)
    from lexalcm.cli.main import main

    code = main(words)
    sys.stdout.flush()
    # What hangs at exit is a fault of the program under test, but not of this one.
    sys.exit(code)


class Run:
    """One attempt at a training run, of one or several ranks."""

    def __init__(self, words: Sequence[str], log: Path, *, num_ranks: int = 1, point: str | None = None) -> None:
        self.log = log
        self._processes: list[BaseProcess] = []
        for rank, some in enumerate(torchrun_variables(num_ranks)):
            process = _CONTEXT.Process(target=_run, args=(list(words), some, point, f"{log}.{rank}"), daemon=True)
            process.start()
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid is not None]

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def send(self, number: int, *, rank: int = 0) -> None:
        os.kill(self.pids[rank], number)

    def wait(self, seconds: float = _SECONDS) -> list[int]:
        """Returns the exit codes; where one rank was killed the others are, as torchrun does it."""
        end = time.monotonic() + seconds
        while any(process.is_alive() for process in self._processes):
            if any(process.exitcode == -signal.SIGKILL for process in self._processes):
                self.kill()
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"nothing came for {seconds} s:\n{self.output()[-3000:]}")
            time.sleep(0.01)
        return [process.exitcode if process.exitcode is not None else -1 for process in self._processes]

    def wait_at_most(self, seconds: float) -> None:
        """
        :raises TimeoutError: It was not done by then.
        """
        end = time.monotonic() + seconds
        while any(process.is_alive() for process in self._processes):
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.01)
        assert self.wait() == [0] * len(self._processes), self.output()[-3000:]

    def output(self) -> str:
        files = sorted(self.log.parent.glob(f"{self.log.name}.*"))
        return "\n".join(file.read_text(errors="replace") for file in files)


def finish(words: Sequence[str], log: Path, *, num_ranks: int = 1) -> Run:
    """Runs to the end."""
    run = Run(words, log, num_ranks=num_ranks)
    codes = run.wait()
    assert codes == [0] * num_ranks, run.output()[-3000:]
    return run


def result(folder: Path) -> dict[str, Any]:
    """What two runs must agree on to the last bit."""
    train = [(e["Step"], e["Loss"], e["Gradient Norm"]) for e in read_metrics(folder / "metrics" / "train.jsonl")]
    valid = [(e["Step"], e["Loss"]) for e in read_metrics(folder / "metrics" / "valid.jsonl")]
    last = folder / "checkpoints" / f"step_{saved_steps(folder / 'checkpoints')[-1]}"
    readers = [torch.load(file, weights_only=True) for file in sorted((last / "data_reader").glob("*.pt"))]
    model = load_model(folder).state_dict()
    return {"train": train, "valid": valid, "step": last.name, "readers": readers, "model": model}


def assert_same(first: dict[str, Any], second: dict[str, Any]) -> None:
    """:param second: Of the run that was killed."""
    for name in ("train", "step", "readers"):
        assert first[name] == second[name], name
    # A validation that was broken off behind a checkpoint is not made up for; each other one found the same.
    assert set(second["valid"]) <= set(first["valid"])
    assert first["model"].keys() == second["model"].keys()
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name]), name
