"""What the machine gives: cores, GPUs, memory, limits of the shell, and the scheduler."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lexalcm.doctor.children import Outcome
from lexalcm.doctor.finding import Finding

GIB: Final = 2**30

_LITTLE_MEMORY: Final = 4 * GIB
_TOO_LITTLE_MEMORY: Final = GIB
"""Importing torch, fairseq2 and SONAR alone takes about as much."""

_LITTLE_SHARED_MEMORY: Final = GIB
_FEW_OPEN_FILES: Final = 4096
_FEW_PROCESSES: Final = 1024
_LARGEST_FILE: Final = 8 * GIB
"""A checkpoint of the 394,900,736-parameter model holds a file of 3.2 GiB; Meta's larger one, one of 12."""

_BF16_FLAGS: Final = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
_AMPERE: Final = (8, 0)


def look_at_cpu(cpuinfo: Path = Path("/proc/cpuinfo"), cgroups: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    """The processor, the cores that this process may use, and whether it multiplies bfloat16."""
    text = cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    name = model[1].strip() if model else platform.processor() or platform.machine()
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    cores = f"{usable} of {total} cores usable"
    if flags is None:
        width = "bfloat16 unknown"
    else:
        is_native = bool(_BF16_FLAGS & set(flags[1].split()))
        width = "bfloat16 is native" if is_native else "bfloat16 is emulated (float32 is faster)"
    quota = cpu_quota(cgroups)
    if quota is not None and quota < usable:
        # Threads beyond the quota are stopped in turn, all of them, for most of each period.
        mend = f"export OMP_NUM_THREADS={max(1, int(quota))}"
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if not threads.isdigit() or int(threads) > max(1, quota):
            yield Finding("warning", "cpu", f"{name}: {cores}, but the control group grants {quota:g}; {width}", mend)
            return
        cores += f", {quota:g} granted by the control group"
    yield Finding("ok", "cpu", f"{name}: {cores}; {width}")


def cpu_quota(folder: Path) -> float | None:
    """The cores' worth of time that the control group grants, of either version; ``None`` where it sets no limit."""
    v2, v1_quota, v1_period = (
        folder / "cpu.max",
        folder / "cpu" / "cpu.cfs_quota_us",
        folder / "cpu" / "cpu.cfs_period_us",
    )
    if v2.is_file():
        words = v2.read_text().split()
    elif v1_quota.is_file() and v1_period.is_file():
        words = [v1_quota.read_text().strip(), v1_period.read_text().strip()]
    else:
        return None
    # "max" and -1 stand for no limit.
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(word.isdigit() for word in words) else None


def look_at_gpus(outcome: Outcome, *, driver: str | None, num_nodes: int) -> Iterator[Finding]:
    """
    :param outcome: Of ``in_child.devices``.
    :param driver: The release of NVIDIA's driver, if there is one.
    :param num_nodes: How many device files of GPUs there are.
    """
    if outcome.failure is not None:
        if outcome.is_tried:
            yield Finding("error", "gpu", f"torch cannot say which GPUs there are: {outcome.failure}")
        else:
            text = f"{num_nodes} GPUs by their device files; torch, which knows more, cannot be imported"
            yield Finding("warning", "gpu", text)
        return
    found: dict[str, Any] = outcome.value
    build = f"CUDA {found['cuda']}" if found["cuda"] else f"ROCm {found['hip']}" if found["hip"] else "CPUs only"
    kernel = f"driver {driver}" if driver else "no NVIDIA driver"
    for i, gpu in enumerate(found["gpus"]):
        yield _gpu(i, gpu, found["archs"], f"{kernel}, torch for {build}")
    if found["gpus"]:
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if num_nodes and not (found["cuda"] or found["hip"]):
        mend = "pip install --force-reinstall torch, in the build for CUDA that fairseq2n is made for"
        yield Finding("warning", "gpu", f"{num_nodes} GPUs are there, but torch is built for {build}", mend)
    elif num_nodes and hidden is not None:
        yield Finding("warning", "gpu", f"CUDA_VISIBLE_DEVICES={hidden!r} hides all {num_nodes} GPUs", "unset it")
    elif num_nodes:
        text = f"{num_nodes} GPUs are there, but torch for {build} cannot use them ({kernel}): {found['problem']}"
        yield Finding("error", "gpu", text, "nvidia-smi shows whether the driver works; one too old must be updated")
    else:
        metal = "; Apple's GPU is not used in training" if found["mps"] else ""
        yield Finding("ok", "gpu", f"no GPU: everything computes on the CPU (torch for {build}, {kernel}){metal}")


def _gpu(index: int, gpu: dict[str, Any], archs: list[str], built: str) -> Finding:
    major, minor = gpu["capability"]
    free = "" if gpu["free"] is None else f"{gpu['free'] / GIB:.1f} GiB free of "
    text = f"cuda:{index} {gpu['name']}: {free}{gpu['total'] / GIB:.1f} GiB, capability {major}.{minor}; {built}"
    # A build for 8.0 runs on 8.6 as well, and torch's list of ROCm's names is of another form.
    runs = [arch for arch in archs if (match := re.search(r"_(\d+)(\d)a?$", arch)) and int(match[1]) == major]
    if gpu["problem"] is not None:
        hint = f" (this torch is built for {', '.join(archs)})" if archs and not runs else ""
        return Finding(
            "error", "gpu", f"{text}; it cannot compute: {gpu['problem']}{hint}", "nvidia-smi, to see its state"
        )
    if (major, minor) < _AMPERE:
        mend = "compute in float16 or float32: trainer.mixed_precision.dtype=torch.float16"
        return Finding("warning", "gpu", f"{text}; bfloat16 is emulated", mend)
    return Finding("ok", "gpu", f"{text}; bfloat16 is native")


def nvidia_driver(version: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The release of the kernel module."""
    match = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", version.read_text()) if version.is_file() else None
    return match[0] if match else None


def num_gpu_nodes(folder: Path = Path("/dev")) -> int:
    """How many device files of NVIDIA's or AMD's GPUs there are, whatever torch can do with them."""
    return sum(re.fullmatch(r"nvidia\d+", node.name) is not None for node in folder.glob("nvidia*")) or (
        len(list((folder / "dri").glob("renderD*"))) if (folder / "kfd").exists() else 0
    )


def look_at_memory() -> Iterator[Finding]:
    """The memory that is left, and which limit leaves it."""
    import psutil

    from lexalcm.memory import left_by_limit

    left = left_by_limit()
    least = min(left, key=lambda limit: left[limit])
    total = f"{psutil.virtual_memory().total / GIB:.1f} GiB"
    limit = f" (limited by {least})" if least != "the machine" else ""
    text = f"{max(left[least], 0) / GIB:.1f} GiB of memory available{limit}; the machine has {total}"
    mend = {
        "the machine": "end what uses it, or take smaller batches",
        "the control group": "give the container or job more (docker run --memory, sbatch --mem)",
        "ulimit -v": "ulimit -v unlimited",
    }[least]
    status = "error" if left[least] < _TOO_LITTLE_MEMORY else "warning" if left[least] < _LITTLE_MEMORY else "ok"
    yield Finding(status, "memory", text, None if status == "ok" else mend)


def look_at_shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """What GPUs of one machine exchange gradients through."""
    if not folder.is_dir():
        return  # not on this system
    usage = shutil.disk_usage(folder)
    text = f"{folder}: {usage.free / GIB:.1f} GiB free of {usage.total / GIB:.1f} GiB"
    if usage.free >= _LITTLE_SHARED_MEMORY:
        yield Finding("ok", "shared memory", text)
    else:
        mend = "docker run --shm-size=8g, or --ipc=host"
        yield Finding("warning", "shared memory", f"{text}, too little for NCCL between several GPUs", mend)


def look_at_limits() -> Iterator[Finding]:
    """What ``ulimit`` allows."""
    told = []
    for name, limit, flag, least, wanted in (
        ("open files", resource.RLIMIT_NOFILE, "n", _FEW_OPEN_FILES, "65536"),
        ("file size", resource.RLIMIT_FSIZE, "f", _LARGEST_FILE, "unlimited"),
        ("processes and threads", resource.RLIMIT_NPROC, "u", _FEW_PROCESSES, "unlimited"),
    ):
        soft, hard = resource.getrlimit(limit)
        is_free = soft == resource.RLIM_INFINITY
        value = "no limit" if is_free else f"{soft / GIB:,.2f} GiB" if flag == "f" else f"{soft:,}"
        told.append(f"{name} {value}")
        if not is_free and soft < least:
            may_raise = hard == resource.RLIM_INFINITY or hard >= least
            mend = f"ulimit -{flag} {wanted if hard == resource.RLIM_INFINITY else hard}"
            fix = mend if may_raise else f"ask the administrator: the hard limit is {hard} too"
            yield Finding("warning", "limits", f"the limit of {name} is {value}, which large runs exceed", fix)
    yield Finding("ok", "limits", f"limits: {', '.join(told)}")


def look_at_scheduler() -> Iterator[Finding]:
    """Slurm's commands, and the job that this runs in."""
    present = [name for name in ("sbatch", "srun") if shutil.which(name)]
    job = os.environ.get("SLURM_JOB_ID")
    place = f"; this is job {job} of it on {os.environ.get('SLURM_JOB_NUM_NODES', '1')} node(s)" if job else ""
    if present:
        yield Finding("ok", "scheduler", f"Slurm: {' and '.join(present)} found{place or '; this is no job of it'}")
    elif job:
        text = "this is a Slurm job, but sbatch and srun are not found: `--launcher slurm` cannot be used from here"
        yield Finding("warning", "scheduler", text, "add Slurm's bin folder to PATH, or submit from the login node")
    else:
        yield Finding("ok", "scheduler", "no Slurm here (sbatch, srun not found): work is done on this machine")
