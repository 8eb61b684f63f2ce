"""Runs sharded work on several workers, here or under Slurm, and says in words which of them died.

The work is a stopes module whose ``array()`` has one item a worker: ``run(item, number)`` does that worker's shards.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lexalcm.errors import LexalcmError, RunError
from lexalcm.pipelines.launch_config import LaunchConfig
from lexalcm.pipelines.launch_local import LocalWorkers
from lexalcm.pipelines.launch_slurm import SlurmWorkers
from lexalcm.pipelines.launch_worker import Outcome, Worker
from lexalcm.pipelines.launch_workers import Workers
from lexalcm.pipelines.quiet_stopes import ArrayTaskError, Launcher, StopesModule
from lexalcm.pipelines.worker_progress import ProgressBoard

_LISTED: Final = 6


def launch(
    work: StopesModule,
    config: LaunchConfig,
    *,
    log_folder: Path,
    on_tick: Callable[[], None] | None = None,
    tick_seconds: float = 0.5,
    name: str = "lexalcm",
    board: ProgressBoard | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Runs all of ``work`` and waits for it, also for the other workers when one fails.

    A single local worker runs in this process, and what it raises comes out as it is. Workers end when this process is
    interrupted (Ctrl-C or SIGTERM: :class:`KeyboardInterrupt`) and, on this machine, when it vanishes.

    :param config: Checked and sized; its ``num_workers`` is the length of ``work.array()``.
    :param log_folder: Each launch makes a folder ``launch-N`` in it, with one log a worker.
    :param on_tick: Called regularly while the work runs, from another thread when it runs in this process.
    :param name: Of the Slurm job.
    :param board: Cleared first; tells at which piece of work a worker died.
    :param say: Told what a user who waits should know; standard error unless given.
    :raises LexalcmError: A worker raised it, say for a row of the input.
    :raises RunError: Workers died, or Slurm refused the job; names each with its log.
    """
    items = list(work.array() or ())
    if board is not None:
        board.clear()
    if not items:
        return
    config = config.sized(len(items))
    with _terminated_as_interrupted():
        if config.launcher == "local" and len(items) == 1 and config.cpus_per_worker is None and not config.max_retries:
            _run_here(work, items[0], on_tick, tick_seconds)
            return
        folder = _new_folder(log_folder)
        workers: Workers
        if config.launcher == "local":
            workers = LocalWorkers(folder, num_workers=len(items), threads=config.cpus_per_worker)
        else:
            workers = SlurmWorkers(folder, config, name=name, num_workers=len(items), say=say or _say)
        parent = os.getpid() if config.launcher == "local" else None
        worker = Worker(work, items, name=name, max_retries=config.max_retries, parent=parent)
        launcher = _Launcher(workers, folder, max_retries=config.max_retries, num_workers=len(items))
        with _logged_to(folder / "launcher.log"):
            outcomes = _run(launcher, worker, workers, on_tick, tick_seconds)
    _raise_failures(outcomes, workers, board)


class _Launcher(Launcher):
    """stopes' launcher on our workers."""

    def __init__(self, workers: Workers, folder: Path, *, max_retries: int, num_workers: int) -> None:
        super().__init__(
            config_dump_dir=folder / "config",
            log_folder=folder,
            disable_tqdm=True,
            max_retries=max_retries,
            max_jobarray_jobs=num_workers,
        )
        self._workers = workers

    def _get_executor(self, module: StopesModule) -> Workers:
        return self._workers

    async def _schedule_array(self, module: StopesModule, value_array: list[Any]) -> list[Outcome | None]:
        """Returns what came of each worker, ``None`` of one that vanished."""
        try:
            return await super()._schedule_array(module, value_array)
        except ArrayTaskError as error:
            # Caught here, for it does not survive a `with`: its class is a frozen dataclass.
            results = dict(error.results)
            return [results.get(number) for number in range(len(value_array))]


def _run(
    launcher: _Launcher,
    worker: Worker,
    workers: Workers,
    on_tick: Callable[[], None] | None,
    tick_seconds: float,
) -> list[Outcome | None]:
    finished = False
    try:
        outcomes = asyncio.run(_follow(launcher, worker, on_tick, tick_seconds))
        finished = True
        return outcomes
    finally:
        if not finished:
            workers.stop()
        workers.let_go()


async def _follow(
    launcher: _Launcher, worker: Worker, on_tick: Callable[[], None] | None, tick_seconds: float
) -> list[Outcome | None]:
    scheduled = asyncio.ensure_future(launcher.schedule(worker))
    while not scheduled.done():
        await asyncio.wait({scheduled}, timeout=tick_seconds)
        if on_tick is not None:
            on_tick()
    return scheduled.result()


def _run_here(work: StopesModule, item: Any, on_tick: Callable[[], None] | None, tick_seconds: float) -> None:
    ended = threading.Event()

    def tick() -> None:
        while on_tick is not None and not ended.wait(tick_seconds):
            on_tick()

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        work(iteration_value=item, iteration_index=0)
    finally:
        ended.set()
        ticking.join()


def _raise_failures(
    outcomes: Sequence[Outcome | None],
    workers: Workers,
    board: ProgressBoard | None,
) -> None:
    told: list[LexalcmError] = []
    died: list[str] = []
    for number, outcome in enumerate(outcomes):
        if outcome is not None and outcome.failure is None:
            continue
        if outcome is not None and (error := outcome.user_error()) is not None:
            told.append(error)
            continue
        unit = board.of(number).unit if board is not None else None
        how = workers.how_it_ended(number) if outcome is None else outcome.failure
        died.append(f"worker {number}{f' at {unit}' if unit else ''}: {how}; its log: {workers.log_of(number)}")
    lines = died[:_LISTED] + ([f"and {len(died) - _LISTED} more in {workers.folder}"] if len(died) > _LISTED else [])
    if told:
        more = [f"{len(told) - 1} more worker(s) stopped for a reason of their own."] if len(told) > 1 else []
        raise type(told[0])("\n".join([str(told[0]), *more, *lines]))
    if died:
        head = f"{len(died)} of {len(outcomes)} workers died. What is done is kept: the same command does the rest."
        raise RunError("\n".join([head, *lines]))


def _new_folder(log_folder: Path) -> Path:
    number = 1
    while True:
        folder = log_folder.absolute() / f"launch-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def _say(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: the workers are ended before this process is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _logged_to(file: Path) -> Iterator[None]:
    """What stopes and submitit log goes to ``file`` and not to the console."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s - %(message)s"))
    loggers = [logging.getLogger(name) for name in ("stopes", "submitit")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, (handlers, propagate, level) in zip(loggers, before):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
        handler.close()
