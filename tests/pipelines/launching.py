"""A small piece of sharded work for the tests of launching, and a Slurm that runs its jobs on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from lexalcm.errors import DataError
from lexalcm.pipelines.quiet_stopes import Requirements, StopesModule
from lexalcm.pipelines.worker_progress import WorkerProgress

# Workers cannot import the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass
class CountingConfig:
    folder: str
    num_workers: int = 2


class Counting(StopesModule):
    """Each worker writes its process id, does what it is told, and writes that it is done."""

    def __init__(self, folder: Path, *, told: dict[int, str] | None = None, num_workers: int = 2) -> None:
        super().__init__(CountingConfig(str(folder), num_workers), CountingConfig)
        self.told = told or {}

    def array(self) -> list[Any]:
        return [list(range(worker, 6, self.config.num_workers)) for worker in range(self.config.num_workers)]

    def requirements(self) -> Requirements:
        return Requirements()

    def run(self, iteration_value: Any = None, iteration_index: int = 0) -> None:
        folder = Path(self.config.folder)
        told = self.told.get(iteration_index, "")
        with WorkerProgress(folder / "progress", iteration_index) as progress:
            for shard in iteration_value:
                progress.at(f"shard {shard}")
                (folder / f"pid-{iteration_index}").write_text(str(os.getpid()))
                if told == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                if told == "raise":
                    raise RuntimeError("the encoder fell over")
                if told == "refuse":
                    raise DataError("in.jsonl:7: no text in `text`.")
                if told == "die once" and not (folder / "died").exists():
                    (folder / "died").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                if told == "leave":
                    sys.stderr.write("half of it is missing\n")
                    os._exit(3)
                end = time.monotonic() + 60  # should nobody end it
                while told == "go on" and time.monotonic() < end:
                    (folder / f"beat-{iteration_index}").write_text(str(time.monotonic()))
                    time.sleep(0.02)
                (folder / f"threads-{iteration_index}").write_text(os.environ.get("OMP_NUM_THREADS", ""))
                (folder / f"shard-{shard}").write_text(str(iteration_index))
                progress.add(documents=10, sentences=100, units=1)
            progress.at(None)


SBATCH = """\
#!{python}
import os, re, subprocess, sys, pathlib
home = pathlib.Path({home!r})
script = pathlib.Path(sys.argv[-1])
text = script.read_text()
(home / "script.sh").write_text(text)
found = re.search(r"--array=.?(\\d+)-(\\d+)", text)
tasks = range(int(found[1]), int(found[2]) + 1) if found else [None]
for task in tasks:
    env = dict(os.environ, SLURM_JOB_ID=str(100 + (task or 0)), SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1")
    if task is not None:
        env |= dict(SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID=str(task))
    else:
        env["SLURM_JOB_ID"] = "77"
    name = "77" if task is None else f"77_{{task}}"
    log = re.search("--output=(.+)", text)[1].strip("'")
    log = log.replace("%A", "77").replace("%a", str(task)).replace("%j", "77")
    code = f"bash {{home}}/script.sh > {{log}} 2>&1; echo $? > {{home}}/ended-{{name}}"
    child = subprocess.Popen(["bash", "-c", code], env=env, start_new_session=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (home / f"job-{{name}}").write_text(str(child.pid))
print("Submitted batch job 77")
"""

SACCT = """\
#!{python}
import pathlib
print("JobID|State|NodeList")
home = pathlib.Path({home!r})
for job in sorted(home.glob("job-*")):
    name = job.name[4:]
    ended = home / f"ended-{{name}}"
    state = "RUNNING" if not ended.exists() else "COMPLETED" if ended.read_text().strip() == "0" else "FAILED"
    print(f"{{name}}|{{state}}|here")
"""

SCANCEL = """\
#!{python}
import os, pathlib, signal, sys
home = pathlib.Path({home!r})
(home / "cancelled").write_text(" ".join(sys.argv[1:]))
for job in home.glob("job-*"):
    try:
        os.killpg(int(job.read_text()), signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def fake_slurm(folder: Path, **instead: str) -> Path:
    """Writes Slurm's commands, which run jobs on this machine, and returns the folder to put on PATH.

    :param instead: The text of a command by its name, to have it do something else.
    """
    home = folder / "slurm"
    home.mkdir()
    commands = {"sbatch": SBATCH, "sacct": SACCT, "scancel": SCANCEL}
    for name, text in commands.items():
        file = home / name
        file.write_text(instead.get(name) or text.format(python=sys.executable, home=str(home)))
        file.chmod(0o755)
    return home
