"""Workers do their shares, and one that dies is named with its log while the others finish."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from launching import Counting

from lexalcm.errors import DataError, RunError
from lexalcm.pipelines.launch import launch
from lexalcm.pipelines.launch_config import LaunchConfig
from lexalcm.pipelines.launch_worker import worker_device
from lexalcm.pipelines.worker_progress import ProgressBoard

TWO = LaunchConfig(num_workers=2)


def shards(folder: Path) -> dict[int, int]:
    return {int(path.name[6:]): int(path.read_text()) for path in folder.glob("shard-*")}


def wait_for(path: Path, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_two_workers_do_all_shards_and_are_watched(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    board, seen = ProgressBoard(tmp_path / "progress"), []
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    launch(Counting(tmp_path), TWO, log_folder=tmp_path / "logs", on_tick=lambda: seen.append(1), tick_seconds=0.1)
    assert shards(tmp_path) == {0: 0, 1: 1, 2: 0, 3: 1, 4: 0, 5: 1}
    pids = {int((tmp_path / f"pid-{worker}").read_text()) for worker in (0, 1)}
    assert len(pids) == 2 and os.getpid() not in pids
    assert len(seen) >= 5
    total = board.totals()
    assert (total.num_documents, total.num_sentences, total.num_units) == (60, 600, 6)
    assert capfd.readouterr() == ("", "") and (root.handlers, root.level) == before
    assert (tmp_path / "logs" / "launch-1" / "worker-1.log").exists()


def test_one_worker_runs_in_this_process(tmp_path: Path) -> None:
    seen: list[int] = []
    work = Counting(tmp_path, num_workers=1)
    launch(work, LaunchConfig(), log_folder=tmp_path / "logs", on_tick=lambda: seen.append(1), tick_seconds=0.001)
    assert set(shards(tmp_path)) == set(range(6))
    assert (tmp_path / "pid-0").read_text() == str(os.getpid()) and seen
    assert not (tmp_path / "logs").exists()


def test_threads_asked_for_are_what_a_worker_gets(tmp_path: Path) -> None:
    work = Counting(tmp_path, num_workers=1)
    launch(work, LaunchConfig(num_workers=1, cpus_per_worker=3), log_folder=tmp_path / "logs")
    assert (tmp_path / "threads-0").read_text() == "3"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python cannot be told so")
def test_workers_import_nothing_from_the_folder_where_the_command_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tqdm.py").write_text("raise RuntimeError('imported')")
    monkeypatch.chdir(tmp_path)
    launch(Counting(tmp_path), TWO, log_folder=tmp_path / "logs")
    assert len(shards(tmp_path)) == 6


def test_a_killed_worker_is_named_with_shard_and_log_and_the_others_finish(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        launch(
            Counting(tmp_path, told={1: "die"}),
            TWO,
            log_folder=tmp_path / "logs",
            board=ProgressBoard(tmp_path / "progress"),
        )
    text = str(caught.value)
    assert "1 of 2 workers died" in text and "worker 1 at shard 1: killed by signal 9" in text
    assert str(tmp_path / "logs" / "launch-1" / "worker-1.log") in text
    assert set(shards(tmp_path)) == {0, 2, 4}


def test_a_worker_that_left_without_a_word_is_named_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="worker 1: ended with exit code 3 .*: half of it is missing; its log"):
        launch(Counting(tmp_path, told={1: "leave"}), TWO, log_folder=tmp_path / "logs")


def test_an_unforeseen_exception_is_told_in_one_line_and_its_traceback_lies_in_the_log(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="worker 0: RuntimeError: the encoder fell over; its log: ") as caught:
        launch(Counting(tmp_path, told={0: "raise"}), TWO, log_folder=tmp_path / "logs")
    assert "Traceback" not in str(caught.value)
    assert "Traceback" in (tmp_path / "logs" / "launch-1" / "worker-0.log").read_text()
    assert set(shards(tmp_path)) == {1, 3, 5}


def test_a_users_error_in_a_worker_comes_out_as_itself(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        launch(Counting(tmp_path, told={0: "refuse", 1: "die"}), TWO, log_folder=tmp_path / "logs")
    first, *rest = str(caught.value).splitlines()
    assert first == "in.jsonl:7: no text in `text`." and len(rest) == 1 and rest[0].startswith("worker 1: killed")


def test_a_worker_that_died_is_started_again_as_often_as_asked(tmp_path: Path) -> None:
    config = LaunchConfig(num_workers=2, max_retries=1)
    launch(Counting(tmp_path, told={1: "die once"}), config, log_folder=tmp_path / "logs")
    assert set(shards(tmp_path)) == set(range(6))
    with pytest.raises(RunError, match="worker-1-start-2.log"):
        launch(Counting(tmp_path, told={1: "die"}), config, log_folder=tmp_path / "logs")


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from launching import Counting
from lexalcm.pipelines.launch import launch
from lexalcm.pipelines.launch_config import LaunchConfig
folder = Path({folder!r})
try:
    launch(Counting(folder, told={{0: "go on", 1: "go on"}}), LaunchConfig(num_workers=2), log_folder=folder / "logs")
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command(sign: signal.Signals, tmp_path: Path) -> None:
    code = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    for worker in (0, 1):
        wait_for(tmp_path / f"beat-{worker}")
    workers = [int((tmp_path / f"pid-{worker}").read_text()) for worker in (0, 1)]
    assert all(is_running(pid) for pid in workers)
    command.send_signal(sign)
    _, error = command.communicate(timeout=30)
    assert command.returncode == (-9 if sign == signal.SIGKILL else 130) and error == ""
    end = time.monotonic() + 15
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlived the command"
        time.sleep(0.1)
    assert not shards(tmp_path)


def test_workers_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [worker_device("auto", worker) for worker in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert worker_device("cpu", 3) == "cpu" and worker_device("cuda:1", 0) == "cuda:1"
