"""What is left of a device's memory, and the refusal where that is not enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

import lexalcm.memory
from lexalcm.errors import ConfigError
from lexalcm.memory import available_memory, check_can_be_mapped, check_fits, format_bytes

MIB = 2**20


def test_the_cpu_has_no_more_than_the_machine() -> None:
    available = available_memory("cpu")

    assert available is not None
    assert 0 < available <= psutil.virtual_memory().total


def test_a_device_that_cannot_be_asked_takes_everything() -> None:
    assert available_memory("meta") is None

    check_fits(1 << 60, "meta", what="A model")


def test_what_does_not_fit_is_refused_with_both_numbers_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexalcm.memory, "available_memory", lambda device: 300 * MIB)

    check_fits(300 * MIB, "cpu", what="The model of card big")
    with pytest.raises(ConfigError) as error:
        check_fits(5 << 30, "cpu", what="The model of card big")

    first, fix = str(error.value).splitlines()
    assert first == "The model of card big needs 5.00 GiB of memory on cpu, but only 300.0 MiB are available."
    assert "--device" in fix and "--dtype bfloat16" in fix


def test_a_limit_of_the_shell_counts_less_what_the_process_has() -> None:
    script = """
import resource, torch
from lexalcm.memory import available_memory
import psutil
size = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
print(available_memory("cpu"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert 0 < int(done.stdout) <= 64 * MIB


def test_files_that_find_no_address_space_are_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    check_can_be_mapped(1 << 60, what="Reading w.pt")

    monkeypatch.setattr(lexalcm.memory, "_left_by_ulimit", lambda: iter([300 * MIB]))
    check_can_be_mapped(300 * MIB, what="Reading w.pt")
    told = "Reading w.pt needs 5.00 GiB of address space, but `ulimit -v` leaves 300.0 MiB"
    with pytest.raises(ConfigError, match=told):
        check_can_be_mapped(5 << 30, what="Reading w.pt")


def test_a_container_s_limit_counts_less_its_use_and_files_kept_in_memory_give_way(tmp_path: Path) -> None:
    group = tmp_path / "cgroup"
    write(group / "memory.max", 1000 * MIB)
    write(group / "memory.current", 700 * MIB)
    (group / "memory.stat").write_text(f"anon {500 * MIB}\nactive_file {150 * MIB}\ninactive_file {50 * MIB}\n")

    assert left(group, "0::/") == [500 * MIB]


def test_every_group_around_a_process_limits_it(tmp_path: Path) -> None:
    outer, inner = tmp_path / "jobs", tmp_path / "jobs" / "mine"
    inner.mkdir(parents=True)
    write(outer / "memory.max", 400 * MIB)
    write(outer / "memory.current", 100 * MIB)
    (inner / "memory.max").write_text("max\n")
    write(inner / "memory.current", 50 * MIB)

    assert left(tmp_path, "0::/jobs/mine") == [300 * MIB]


def test_version_1_of_control_groups_is_read_too(tmp_path: Path) -> None:
    group = tmp_path / "memory" / "box"
    write(group / "memory.limit_in_bytes", 800 * MIB)
    write(group / "memory.usage_in_bytes", 200 * MIB)
    (group / "memory.stat").write_text(f"active_file 1\ntotal_active_file {40 * MIB}\ntotal_inactive_file {10 * MIB}\n")
    write(tmp_path / "memory" / "memory.limit_in_bytes", 9223372036854771712)
    write(tmp_path / "memory" / "memory.usage_in_bytes", 200 * MIB)

    assert left(tmp_path, "5:cpu:/box\n4:memory:/box\n0::/") == [650 * MIB]


def test_a_container_that_sees_its_own_group_as_the_root_is_limited_by_it(tmp_path: Path) -> None:
    write(tmp_path / "memory" / "memory.limit_in_bytes", 800 * MIB)
    write(tmp_path / "memory" / "memory.usage_in_bytes", 200 * MIB)

    assert left(tmp_path, "4:memory:/on/the/host") == [600 * MIB]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_pytorch_keeps_of_a_gpu_for_itself_can_be_given_out_again() -> None:
    before = available_memory("cuda")
    block = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    during = available_memory("cuda")
    del block
    after = available_memory("cuda")

    assert before is not None and during is not None and after is not None
    assert before - during >= 64 * MIB
    assert after - during == 64 * MIB


def test_sizes_are_told_in_units_that_can_be_read() -> None:
    assert format_bytes(3 * MIB // 2) == "1.5 MiB"
    assert format_bytes(2**30) == "1.00 GiB"


def write(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{number}\n")


def left(folder: Path, groups: str) -> list[int]:
    own = folder / "own"
    own.write_text(groups + "\n")
    return list(lexalcm.memory._left_by_cgroups(folder, own))
