"""The way to Slurm and back, tried on commands that run its jobs on this machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import Counting, fake_slurm

from lexalcm.errors import RunError
from lexalcm.pipelines.launch import launch
from lexalcm.pipelines.launch_config import LaunchConfig
from lexalcm.pipelines.launch_slurm import QueueWatcher

SLURM = LaunchConfig(launcher="slurm", num_workers=2, cpus_per_worker=2, time_min=30)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = fake_slurm(tmp_path)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    return home


def test_an_array_of_jobs_does_all_shards_and_its_number_is_told(
    slurm: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    SLURM.check()
    launch(Counting(tmp_path), SLURM, log_folder=tmp_path / "logs", name="prepare", say=said.append)
    assert {path.name: path.read_text() for path in tmp_path.glob("shard-*")} == {
        f"shard-{shard}": str(shard % 2) for shard in range(6)
    }
    assert said == [f"Slurm job 77: 2 worker(s), logs in {tmp_path / 'logs' / 'launch-1'}"]
    assert capfd.readouterr() == ("", "") and not (slurm / "cancelled").exists()


def test_every_option_reaches_the_script(slurm: Path, tmp_path: Path) -> None:
    config = LaunchConfig(
        launcher="slurm",
        nodes=2,
        cpus_per_worker=3,
        gpus_per_worker=1,
        mem_gb=1.5,
        time_min=90,
        partition="gpu",
        qos="low",
        account="me",
        constraint="a100",
        slurm_options={"exclude": "node7", "requeue": None, "wckey": "other"},
    )
    config.check()
    launch(Counting(tmp_path), config, log_folder=tmp_path / "logs", name="prepare", say=lambda text: None)
    script = (slurm / "script.sh").read_text()
    for line in (
        "--job-name=prepare",
        "--nodes=1",
        "--exclusive",
        "--cpus-per-task=3",
        "--gpus-per-node=1",
        "--mem=1536M",
        "--time=90",
        "--partition=gpu",
        "--qos=low",
        "--account=me",
        "--constraint=a100",
        "--exclude=node7",
        "--requeue",
        "--wckey=other",
    ):
        assert script.count(f"#SBATCH {line}\n") == 1, line
    assert "wckey=submitit" not in script


def test_a_single_worker_is_a_single_job(slurm: Path, tmp_path: Path) -> None:
    launch(Counting(tmp_path, num_workers=1), SLURM, log_folder=tmp_path / "logs", say=lambda text: None)
    assert len(list(tmp_path.glob("shard-*"))) == 6 and "--array" not in (slurm / "script.sh").read_text()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_refusal_is_told_in_the_schedulers_words_and_nothing_runs(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = "#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n"
    monkeypatch.setenv("PATH", f"{fake_slurm(tmp_path, sbatch=refusal)}:/usr/bin:/bin")
    with pytest.raises(RunError, match="nothing was started.*\nsbatch: error: invalid partition specified: gpu"):
        launch(Counting(tmp_path, num_workers=num_workers), SLURM, log_folder=tmp_path / "logs")
    assert capfd.readouterr() == ("", "") and not list(tmp_path.glob("shard-*"))


def test_an_answer_without_a_number_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{fake_slurm(tmp_path, sbatch='#!/bin/sh' + chr(10) + 'echo welcome')}:/usr/bin:/bin")
    with pytest.raises(RunError, match="sbatch names no job: .*welcome"):
        launch(Counting(tmp_path), SLURM, log_folder=tmp_path / "logs")


def test_a_worker_that_died_is_named_with_its_job_and_log(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("submitit.slurm.slurm.SlurmJob._results_timeout_s", 0)
    with pytest.raises(RunError) as caught:
        launch(Counting(tmp_path, told={1: "die"}), SLURM, log_folder=tmp_path / "logs", say=lambda text: None)
    assert "worker 1: Slurm job 77_1 (state FAILED) ended without a result" in str(caught.value)
    assert str(tmp_path / "logs" / "launch-1" / "77_1_0_log.out") in str(caught.value)
    assert {path.name for path in tmp_path.glob("shard-*")} == {"shard-0", "shard-2", "shard-4"}


@pytest.mark.parametrize(
    ("state", "told"),
    [("OUT_OF_MEMORY", "--mem-gb"), ("TIMEOUT", "--time"), ("CANCELLED by 1000", "was cancelled")],
)
def test_what_slurm_knows_of_a_death_is_told(
    state: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sacct = f"#!/bin/sh\necho 'JobID|State|NodeList'\necho '77_0|RUNNING|a'\necho '77_1|{state}|a'\n"
    monkeypatch.setenv("PATH", f"{fake_slurm(tmp_path, sacct=sacct)}:/usr/bin:/bin")
    monkeypatch.setattr("submitit.slurm.slurm.SlurmJob._results_timeout_s", 0)
    with pytest.raises(RunError) as caught:
        launch(Counting(tmp_path, told={1: "die"}), SLURM, log_folder=tmp_path / "logs", say=lambda text: None)
    assert f"(state {state})" in str(caught.value) and told in str(caught.value)


def test_an_interrupted_command_cancels_its_jobs_and_says_so(slurm: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def interrupt() -> None:
        if (tmp_path / "beat-1").exists():
            raise KeyboardInterrupt

    work = Counting(tmp_path, told={0: "go on", 1: "go on"})
    with pytest.raises(KeyboardInterrupt):
        launch(work, SLURM, log_folder=tmp_path / "logs", on_tick=interrupt, say=said.append)
    assert (slurm / "cancelled").read_text() == "77" and said[-1] == "cancelled Slurm job 77"
    time.sleep(0.5)
    beat = (tmp_path / "beat-1").read_text()
    time.sleep(0.2)
    assert (tmp_path / "beat-1").read_text() == beat


def test_where_accounts_are_not_kept_the_queue_tells_who_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = tmp_path / "queue"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {queue}\n")
    (tmp_path / "sacct").write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    for name in ("squeue", "sacct"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    watcher = QueueWatcher()
    for job in ("5_0", "5_1"):
        watcher.register_job(job)
    queue.write_text("5_0|RUNNING\n5_1|CONFIGURING\n")
    watcher.update()
    assert [watcher.get_state(job, mode="cache") for job in ("5_0", "5_1")] == ["RUNNING", "CONFIGURING"]
    assert not watcher.is_done("5_0", mode="cache") and not watcher.is_done("5_1", mode="cache")
    queue.write_text("5_1|RUNNING\n")
    watcher.update()
    assert watcher.is_done("5_0", mode="cache") and not watcher.is_done("5_1", mode="cache")
    queue.unlink()
    watcher.update()
    assert not watcher.is_done("5_1", mode="cache"), "a queue that does not answer says nothing"


def test_a_preempted_job_is_waited_for_while_it_is_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = tmp_path / "queue"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ncat {queue}\n")
    (tmp_path / "sacct").write_text("#!/bin/sh\necho 'JobID|State|NodeList'\necho '5|PREEMPTED|a'\n")
    for name in ("squeue", "sacct"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    watcher = QueueWatcher()
    watcher.register_job("5")
    queue.write_text("5|PENDING\n")
    watcher.update()
    assert not watcher.is_done("5", mode="cache")
    queue.write_text("")
    watcher.update()
    assert watcher.is_done("5", mode="cache") and "PREEMPTED" in watcher.get_state("5", mode="cache")
