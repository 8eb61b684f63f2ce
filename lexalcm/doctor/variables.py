"""Environment variables that change what commands do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from lexalcm.doctor.children import Outcome
from lexalcm.doctor.finding import Finding, without_secrets
from lexalcm.shown import is_secret

_SHOWN: Final = (
    "CONDA_PREFIX",
    "CUDA_",
    "FAIRSEQ2_",
    "HF_",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LEXALCM_",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_",
    "MKL_",
    "NCCL_",
    "OMP_",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTORCH_",
    "RANK",
    "SLURM_JOB_",
    "SLURM_NTASKS",
    "TMPDIR",
    "TORCH_",
    "TRANSFORMERS_OFFLINE",
    "VIRTUAL_ENV",
    "WORLD_SIZE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)
_LONGEST: Final = 48
_MOST_SHOWN: Final = 12
_DEVICE: Final = re.compile(r"cpu|cuda(:\d+)?")


def shown_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Those that matter here, with their values; none whose name says that its value is a secret."""
    names = sorted(name for name in environment if name.startswith(_SHOWN) and not is_secret(name))
    return {name: without_secrets(environment[name], environment) for name in names}


def look_at_variables(devices: Outcome, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Those that are set, and those that cannot be right.

    :param devices: Of ``in_child.devices``.
    """
    yield from _device(environment.get("FAIRSEQ2_DEVICE", ""), devices)
    world = environment.get("WORLD_SIZE", "1")
    # torchrun sets all of them; what a shell has kept of it makes a single process wait for others.
    if world != "1" and "TORCHELASTIC_RUN_ID" not in environment and "SLURM_JOB_ID" not in environment:
        text = f"WORLD_SIZE={world} is set: a run started here waits for other processes, if none is started beside it"
        yield Finding("warning", "variables", text, "unset WORLD_SIZE RANK LOCAL_RANK, or start with torchrun")
    for name in ("LD_PRELOAD", "PYTHONPATH", "LD_LIBRARY_PATH"):
        places = [place for place in environment.get(name, "").split(os.pathsep) if place.startswith("/")]
        missing = [place for place in places if not Path(place).exists()]
        if missing:
            yield Finding("warning", "variables", f"{name} names {missing[0]}, which is not there", f"correct {name}")
    if environment.get("PYTHONHOME"):
        yield Finding("warning", "variables", "PYTHONHOME takes Python from another place", "unset PYTHONHOME")
    shown = shown_variables(environment)
    parts = [
        f"{name}={value if len(value) <= _LONGEST else value[: _LONGEST - 3] + '...'}" for name, value in shown.items()
    ]
    more = f" and {len(parts) - _MOST_SHOWN} more (--json)" if len(parts) > _MOST_SHOWN else ""
    text = f"set: {' '.join(parts[:_MOST_SHOWN])}{more}" if parts else "none of those that matter is set"
    yield Finding("ok", "variables", text)


def _device(wanted: str, devices: Outcome) -> Iterator[Finding]:
    if not wanted:
        return
    if _DEVICE.fullmatch(wanted) is None:
        text = f'FAIRSEQ2_DEVICE="{wanted}" is not the name of a device to train on: cpu, cuda, cuda:N'
        yield Finding("error", "variables", text, "unset FAIRSEQ2_DEVICE")
    elif wanted != "cpu" and devices.failure is None:
        number = int(wanted.partition(":")[2] or 0)
        if number >= (count := len(devices.value["gpus"])):
            text = f"FAIRSEQ2_DEVICE={wanted} is set, but {count} GPUs are usable"
            yield Finding("error", "variables", text, "unset FAIRSEQ2_DEVICE, or export FAIRSEQ2_DEVICE=cpu")
