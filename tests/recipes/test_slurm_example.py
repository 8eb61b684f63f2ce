"""``recipes/train.sbatch`` on a Slurm that runs its tasks on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lexalcm.checkpoints.load import load_model
from lexalcm.recipes.curves import read_metrics

SCRIPT = Path(__file__).parents[2] / "recipes" / "train.sbatch"

SRUN = """\
#!{python}
import os, pathlib, subprocess, sys, time
home = pathlib.Path({home!r})
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
tasks = []
for number in range(int(os.environ["SLURM_NTASKS"])):
    told = dict(os.environ, SLURM_PROCID=str(number), SLURM_LOCALID=str(number))
    tasks.append(subprocess.Popen(words, env=told))
    (home / f"task-{{number}}").write_text(str(tasks[-1].pid))
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks):  # --kill-on-bad-exit
        time.sleep(1)
        for task in tasks:
            task.terminate()
    time.sleep(0.1)
sys.exit(max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks))
"""

SCONTROL = """\
#!{python}
import pathlib, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1")
else:
    with open(pathlib.Path({home!r}) / "asked", "a") as asked:
        print(*sys.argv[1:], file=asked)
"""

FAIRSEQ2 = """\
#!/bin/bash
printf '[%s]' "$@"
if [ -n "$STEP" ]; then mkdir -p "$4/checkpoints/step_$STEP"; fi
exit $CODE
"""


class Cluster:
    """One node. Its jobs run here, and what is asked of ``scontrol`` is written down."""

    def __init__(self, folder: Path, num_tasks: int) -> None:
        self.home = folder / "slurm"
        self.home.mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            self.add(name, text.format(python=sys.executable, home=str(self.home)))
        job = str(os.getpid())  # which the port that ranks meet at follows from
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLURM_")},
            "PATH": os.pathsep.join([str(self.home), str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "SLURM_JOB_ID": job,
            "SLURM_JOB_NODELIST": "here",
            "SLURM_NTASKS": str(num_tasks),
            "SLURM_NTASKS_PER_NODE": str(num_tasks),
            "SLURM_CPUS_PER_TASK": "1",
        }
        self.requeued = f"requeue {job}\n"

    def add(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)
        (self.home / name).chmod(0o755)

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        command = ["bash", str(SCRIPT), *words]
        environment = {**self.environment, **variables}
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        job = self.start(*words, **variables)
        said, _ = job.communicate(timeout=240)
        return job.returncode, said

    def warn_of_the_time_limit(self) -> None:
        """What ``--signal=USR1@180`` does: Slurm signals the tasks, not the script."""
        for task in self.home.glob("task-*"):
            os.kill(int(task.read_text()), signal.SIGUSR1)

    @property
    def asked(self) -> str:
        file = self.home / "asked"
        return file.read_text() if file.exists() else ""


def test_slurm_reads_the_settings_that_the_script_counts_on() -> None:
    text = SCRIPT.read_text()
    settings = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {"--nodes=2", "--requeue", "--signal=USR1@180", "--open-mode=append"} <= set(settings)
    # Slurm stops reading at the first command.
    first_command = next(i for i, line in enumerate(text.splitlines()) if line and not line.startswith("#"))
    assert text.splitlines()[first_command:] == [
        line for line in text.splitlines()[first_command:] if not line.startswith("#SBATCH")
    ]
    # fairseq2 gives each task the GPU of its local number, and takes the ranks of a node from this variable's option.
    assert not any(setting.startswith("--gpus-per-task") for setting in settings)
    assert any(setting.startswith("--ntasks-per-node") for setting in settings)


@pytest.mark.parametrize(
    ("code", "step", "ended_with", "is_requeued"),
    [("0", "12", 0, False), ("143", "12", 0, True), ("143", "", 143, False), ("3", "12", 3, False)],
)
def test_only_a_run_that_stopped_with_a_new_checkpoint_goes_back_to_the_queue(
    code: str, step: str, ended_with: int, is_requeued: bool, tmp_path: Path
) -> None:
    cluster, run = Cluster(tmp_path, num_tasks=1), tmp_path / "my runs"
    cluster.add("fairseq2", FAIRSEQ2)
    (run / "checkpoints" / "step_9").mkdir(parents=True)
    (run / "checkpoints" / "step_100.damaged").mkdir()
    returned, said = cluster.run("pre1", str(run), "a.b=1 2", "c={d: 3}", CODE=code, STEP=step)
    assert said == f"[lcm][train][pre1][{run}][--no-rich][--config][a.b=1 2][c={{d: 3}}]"
    assert (returned, cluster.asked) == (ended_with, cluster.requeued if is_requeued else "")


def test_ranks_that_are_ended_because_one_has_failed_are_not_put_back(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, num_tasks=2)
    cluster.add("fairseq2", '#!/bin/bash\nif [ "$SLURM_PROCID" = 0 ]; then exit 2; fi\nexec sleep 60\n')
    returned, _ = cluster.run("pre1", str(tmp_path / "a"))
    assert (returned, cluster.asked) == (143, "")


def test_a_recipe_needs_no_changes_but_a_folder(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, num_tasks=1)
    cluster.add("fairseq2", FAIRSEQ2)
    assert cluster.run("pre1", "a", CODE="0") == (0, "[lcm][train][pre1][a][--no-rich]")
    returned, said = cluster.run("pre1", CODE="0")
    assert returned == 2 and said.startswith("usage: sbatch")


@pytest.mark.long
@pytest.mark.parametrize("num_tasks", [1, 2])
def test_jobs_that_reach_their_time_limit_make_one_run(
    num_tasks: int, tmp_path: Path, tiny_overrides: list[str]
) -> None:
    cluster, run = Cluster(tmp_path, num_tasks), tmp_path / "run"
    long = ["regime.num_steps=200", "regime.validate_every_n_steps=100", "regime.checkpoint_every_n_steps=100"]
    words = ["quickstart", str(run), *tiny_overrides, *long, "gang.timeout=1"]
    metrics = run / "metrics" / "train.jsonl"

    job = cluster.start(*words)
    end = time.monotonic() + 120
    while job.poll() is None and not metrics.exists() and time.monotonic() < end:
        time.sleep(0.02)
    cluster.warn_of_the_time_limit()
    said, _ = job.communicate(timeout=120)
    assert (job.returncode, cluster.asked) == (0, cluster.requeued), said[-3000:]
    steps_of_first = len(read_metrics(metrics))
    assert 0 < steps_of_first < 200

    returned, said = cluster.run(*words)
    assert (returned, cluster.asked) == (0, cluster.requeued), said[-3000:]
    assert f"from the last checkpoint at step {steps_of_first}" in said.replace("\n", " ")
    assert f"Running on {num_tasks} process(es)" in said
    assert [entry["Step"] for entry in read_metrics(metrics)] == list(range(1, 201))
    load_model(run)
