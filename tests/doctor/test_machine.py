"""Limits of the machine that stop or slow a run are told before it."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from lexalcm import memory
from lexalcm.doctor import machine
from lexalcm.doctor.children import Outcome
from lexalcm.doctor.finding import Finding
from lexalcm.doctor.machine import GIB


def test_the_processor_says_whether_it_multiplies_bfloat16(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx512_bf16\n")
    (finding,) = machine.look_at_cpu(cpuinfo, tmp_path)
    assert finding.status == "ok" and "Some CPU" in finding.text and "bfloat16 is native" in finding.text
    cpuinfo.write_text("model name\t: Old CPU\nflags\t\t: fpu avx2\n")
    assert "bfloat16 is emulated" in next(iter(machine.look_at_cpu(cpuinfo, tmp_path))).text


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_control_group_is_read(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.cpu_quota(tmp_path) == cores


def test_more_threads_than_a_control_group_grants_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (finding,) = machine.look_at_cpu(cgroups=tmp_path)
    assert finding.status == "warning" and finding.mend == "export OMP_NUM_THREADS=1" and "0.5" in finding.text
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert [finding.status for finding in machine.look_at_cpu(cgroups=tmp_path)] == ["ok"]


GPU = {"name": "H100", "capability": [9, 0], "total": 80 * GIB, "free": 79 * GIB, "problem": None}
BUILD = {"cuda": "12.8", "hip": None, "archs": ["sm_80", "sm_90"], "mps": False, "problem": None, "gpus": []}


def look(*, num_nodes: int = 1, failure: str | None = None, is_tried: bool = True, **found: Any) -> Finding:
    outcome = Outcome({**BUILD, **found} if failure is None else None, failure, is_tried)
    (finding,) = machine.look_at_gpus(outcome, driver="550.54.15", num_nodes=num_nodes)
    return finding


def test_a_gpu_is_told_with_its_memory_driver_and_build() -> None:
    finding = look(gpus=[GPU])
    assert finding.status == "ok"
    for told in ("cuda:0 H100", "79.0 GiB free of 80.0 GiB", "driver 550.54.15", "CUDA 12.8", "bfloat16 is native"):
        assert told in finding.text


def test_an_older_gpu_has_no_bfloat16() -> None:
    finding = look(gpus=[{**GPU, "capability": [7, 5]}])
    assert finding.status == "warning" and "emulated" in finding.text and "float16" in str(finding.mend)


def test_a_gpu_that_cannot_compute_is_an_error_that_names_the_builds_of_torch() -> None:
    finding = look(gpus=[{**GPU, "capability": [5, 0], "problem": "no kernel image"}])
    assert finding.status == "error" and "no kernel image (this torch is built for sm_80, sm_90)" in finding.text


def test_gpus_that_torch_cannot_use_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = look(problem="the driver is too old")
    assert finding.status == "error" and "cannot use them (driver 550.54.15): the driver is too old" in finding.text
    assert look(cuda=None).status == "warning" and "built for CPUs only" in look(cuda=None).text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' hides all 1 GPUs" in look().text
    assert look(num_nodes=0).status == "ok"


def test_devices_are_told_from_their_files_where_torch_fails() -> None:
    assert look(num_nodes=2, failure="needs torch", is_tried=False).text.startswith("2 GPUs by their device files")
    assert look(failure="ends the process by SIGSEGV").status == "error"


def test_device_files_and_the_driver_are_found(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert machine.num_gpu_nodes(tmp_path) == 2
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version: 12\n")
    assert machine.nvidia_driver(version) == "550.54.15"
    assert machine.nvidia_driver(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("left", "status", "told"),
    [
        ({"the machine": 100 * GIB}, "ok", "100.0 GiB of memory available;"),
        ({"the machine": 100 * GIB, "the control group": 2 * GIB}, "warning", "(limited by the control group)"),
        (
            {"the machine": 100 * GIB, "ulimit -v": GIB // 2},
            "error",
            "0.5 GiB of memory available (limited by ulimit -v)",
        ),
    ],
)
def test_little_memory_is_told_with_what_limits_it(
    monkeypatch: pytest.MonkeyPatch, left: dict[str, int], status: str, told: str
) -> None:
    monkeypatch.setattr(memory, "left_by_limit", lambda: left)
    (finding,) = machine.look_at_memory()
    assert finding.status == status and told in finding.text and (finding.mend is None) == (status == "ok")


def test_a_small_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil._ntuple_diskusage  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(64 << 20, 0, 64 << 20))
    (finding,) = machine.look_at_shared_memory(tmp_path)
    assert finding.status == "warning" and "--shm-size" in str(finding.mend)


def test_tight_limits_are_told_with_the_command_that_raises_them(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: (256, 8192), resource.RLIMIT_FSIZE: (GIB, GIB)}
    free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.get(which, free))
    files, size, line = machine.look_at_limits()
    assert files.status == size.status == "warning" and line.status == "ok"
    assert "open files is 256" in files.text and files.mend == "ulimit -n 8192"
    assert "file size is 1.00 GiB" in size.text and "hard limit" in str(size.mend)


def test_a_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (finding,) = machine.look_at_scheduler()
    assert finding.status == "warning" and "sbatch and srun are not found" in finding.text
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (finding,) = machine.look_at_scheduler()
    assert finding.status == "ok" and "job 42" in finding.text
