"""Workers as processes of this machine: submitit's local executor without its controller, a process a worker that takes
half its place, hides GPUs, gives up after a time, swallows exit codes and outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from submitit.core.utils import DelayedSubmission
from submitit.local.local import LocalExecutor, LocalJob

from lexalcm.pipelines.launch_config import num_cores
from lexalcm.pipelines.launch_workers import Workers

_GRACE_SECONDS: Final = 10.0
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


class WorkerProcess(LocalJob[Any]):
    """A worker that runs or ran; ``log`` has what it wrote to its standard streams."""

    _results_timeout_s = 0  # its result lies on this machine's disk before it ends

    def __init__(self, folder: Path, job_id: str, process: subprocess.Popen[bytes], log: Path) -> None:
        super().__init__(folder, job_id, process=process)
        self.process, self.log = process, log


class LocalWorkers(Workers, LocalExecutor):
    """Starts every worker at once."""

    def __init__(self, folder: Path, *, num_workers: int, threads: int | None) -> None:
        """
        :param threads: Of a worker; ``None``: what the environment says, else the cores shared out evenly.
        """
        super().__init__(folder)
        self.jobs: dict[int, WorkerProcess]
        self._starts = 0
        # Workers import what this process would, and not whatever lies in the folder where it was started.
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        self._environment = {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
        for name in _THREAD_VARIABLES:
            if threads is not None or name not in self._environment:
                self._environment[name] = str(threads or max(1, num_cores() // num_workers))

    def _internal_process_submissions(self, delayed_submissions: Sequence[DelayedSubmission]) -> list[Any]:
        return [self._start(delayed) for delayed in delayed_submissions]

    def _start(self, delayed: DelayedSubmission) -> WorkerProcess:
        worker = delayed.kwargs["iteration_index"]
        job_id = f"worker-{worker}" if worker not in self.jobs else f"worker-{worker}-start-{self._starts}"
        self._starts += 1
        log = self.folder / f"{job_id}.log"
        delayed.dump(self.folder / f"{job_id}_submitted.pkl")
        environment = {
            **self._environment,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_JOB_ID": job_id,
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_GLOBALID": "0",
            "SUBMITIT_LOCAL_LOCALID": "0",
        }
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-u", "-m", "submitit.core._submit", str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C reaches the command alone, which then ends its workers in order
            )
        self.jobs[worker] = WorkerProcess(self.folder, job_id, process, log)
        return self.jobs[worker]

    def log_of(self, worker: int) -> Path:
        return self.jobs[worker].log

    def how_it_ended(self, worker: int) -> str:
        code = self.jobs[worker].process.poll()
        if code == -signal.SIGKILL:
            return "killed by signal 9: by the system for want of memory, or by hand"
        if code is not None and code < 0:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code} and without a result{self.last_words(worker)}"

    def stop(self) -> None:
        """Ends all workers: first asks, then kills. A second Ctrl-C kills at once."""
        processes = [job.process for job in self.jobs.values()]
        try:
            for process in processes:
                process.send_signal(signal.SIGINT)
            end = monotonic() + _GRACE_SECONDS
            while any(process.poll() is None for process in processes) and monotonic() < end:
                sleep(0.05)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()
