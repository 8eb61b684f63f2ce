"""Workers as an array of Slurm jobs: submitit's executor, with the scheduler's own words when it refuses."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from getpass import getuser
from pathlib import Path
from shutil import which
from time import monotonic
from typing import Any, Final
from uuid import uuid4

from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor, SlurmInfoWatcher, SlurmJob

from lexalcm.errors import RunError
from lexalcm.pipelines.launch_config import LaunchConfig, sbatch_parameters
from lexalcm.pipelines.launch_workers import Workers

_LOOK_SECONDS: Final = 60
_UNLISTED_SECONDS: Final = 120.0

_GOING_ON: Final = frozenset(
    (
        "COMPLETING",
        "CONFIGURING",
        "PENDING",
        "PREEMPTED",
        "READY",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RUNNING",
        "SIGNALING",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
        "UNKNOWN",
    )
)
"""States of jobs that may yet do something; submitit knows half of them."""

_ENDS: Final = {
    "OUT_OF_MEMORY": "ran out of memory; ask for more with --mem-gb",
    "TIMEOUT": "ran out of time; ask for more with --time",
    "NODE_FAIL": "lost its node",
    "PREEMPTED": "made room for another job",
    "CANCELLED": "was cancelled",
}


class SlurmWorkers(Workers, SlurmExecutor):
    """Submits all workers as one array, so that none is left behind when the scheduler refuses."""

    def __init__(
        self, folder: Path, config: LaunchConfig, *, name: str, num_workers: int, say: Callable[[str], None]
    ) -> None:
        """
        :param config: Sized.
        :param say: Told the number of the job, and that it was cancelled.
        """
        super().__init__(folder)
        self.jobs: dict[int, SlurmJob[Any]]
        self._say = say
        self._watcher = QueueWatcher()
        self.update_parameters(
            job_name=name,
            time=config.time_min,
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=config.cpus_per_worker,
            gpus_per_node=config.gpus_per_worker or None,
            mem=None if config.mem_gb is None else f"{round(config.mem_gb * 1024)}M",
            exclusive=True if config.nodes is not None else None,
            partition=config.partition,
            qos=config.qos,
            account=config.account,
            constraint=config.constraint,
            array_parallelism=num_workers,
            use_srun=False,  # one task a job needs none, and since Slurm 22.05 it would get one CPU of them all
            stderr_to_stdout=True,
            additional_parameters=sbatch_parameters(config.slurm_options),
        )

    @classmethod
    def affinity(cls) -> int:
        return 2  # submitit asks for srun

    def _internal_process_submissions(self, delayed_submissions: Sequence[DelayedSubmission]) -> list[Any]:
        try:
            # submitit prints what sbatch wrote, which the error says anyway.
            with redirect_stderr(io.StringIO()):
                jobs = self._submit_array(delayed_submissions)
        except FailedJobError as error:
            raise RunError(f"Slurm refused the job, and nothing was started. sbatch says:\n{error}") from None
        except FailedSubmissionError as error:
            raise RunError(f"sbatch names no job: {str(error).splitlines()[0]}") from None
        for delayed, job in zip(delayed_submissions, jobs):
            job.watcher = self._watcher
            self._watcher.register_job(job.job_id)
            self.jobs[delayed.kwargs["iteration_index"]] = job
        self._say(f"Slurm job {_number(jobs[0])}: {len(jobs)} worker(s), logs in {self.folder}")
        return jobs

    def _submit_array(self, delayed_submissions: Sequence[DelayedSubmission]) -> list[SlurmJob[Any]]:
        if len(delayed_submissions) == 1:
            return super()._internal_process_submissions(list(delayed_submissions))
        asides = [self.folder / f"{uuid4().hex}.pkl" for _ in delayed_submissions]
        for delayed, aside in zip(delayed_submissions, asides):
            delayed.dump(aside)
        self.parameters["map_count"] = len(asides)
        try:
            array = self._submit_command(self._submitit_command_str)
        finally:
            del self.parameters["map_count"]
        jobs = [SlurmJob(self.folder, f"{array.job_id}_{number}") for number in range(len(asides))]
        for job, aside in zip(jobs, asides):
            aside.rename(job.paths.submitted_pickle)
        return jobs

    def log_of(self, worker: int) -> Path:
        return self.jobs[worker].paths.stdout

    def how_it_ended(self, worker: int) -> str:
        job_id = self.jobs[worker].job_id
        state = self._watcher.get_state(job_id, mode="force")
        known = next((how for name, how in _ENDS.items() if name in state), None)
        how = known or f"ended without a result{self.last_words(worker)}"
        return f"Slurm job {job_id} (state {state}) {how}"

    def stop(self) -> None:
        """Cancels all jobs, and says so."""
        for number in sorted({_number(job) for job in self.jobs.values() if not job.paths.result_pickle.exists()}):
            try:
                subprocess.run(["scancel", number], capture_output=True, text=True, check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                why = str(getattr(error, "stderr", None) or error).strip()
                self._say(f"could not cancel Slurm job {number} ({why}); do it by hand: scancel {number}")
            else:
                self._say(f"cancelled Slurm job {number}")


class QueueWatcher(SlurmInfoWatcher):
    """Asks ``sacct``, and of jobs that it does not know, or whose return is unsure, ``squeue``.

    Many clusters keep no accounts; submitit would wait forever for a job of theirs that died.
    """

    def __init__(self) -> None:
        super().__init__(delay_s=_LOOK_SECONDS)
        self._began = monotonic()
        self._listed: set[str] = set()

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        state = self.get_state(job_id, mode=mode)
        return job_id in self._finished or state.upper() not in _GOING_ON

    def update(self) -> None:
        super().update()
        asked = {job for job in self._registered - self._finished if self._is_unsure(job)}
        states = self._queue() if asked else None
        if states is None:
            return
        for job in asked:
            if job in states:
                self._listed.add(job)
                self._info_dict[job] = {"State": states[job], "By": "squeue"}
            elif job in self._listed or self._info_dict.get(job) or monotonic() - self._began > _UNLISTED_SECONDS:
                # It has left the queue, or was never seen there in all the time that a listing takes.
                self._info_dict[job] = {"State": f"GONE, before {self._info_dict.get(job, {}).get('State', 'UNKNOWN')}"}
                self._finished.add(job)

    def _is_unsure(self, job: str) -> bool:
        info = self._info_dict.get(job, {})
        return not info or info.get("By") == "squeue" or info.get("State") == "PREEMPTED"

    def _queue(self) -> dict[str, str] | None:
        """States by job of this user's jobs, or ``None`` where nobody answers."""
        if which("squeue") is None:
            return None
        command = ["squeue", "--noheader", "--array", "--user", getuser(), "--format", "%i|%T"]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode != 0:
            return None
        pairs = (line.strip().partition("|") for line in answer.stdout.splitlines() if "|" in line)
        return {job: state for job, _, state in pairs}


def _number(job: SlurmJob[Any]) -> str:
    """Of the array that a job is part of."""
    return job.job_id.partition("_")[0]
