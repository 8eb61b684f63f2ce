"""Where sharded work runs: on this machine or under Slurm, on how many workers, and with what each of them gets."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from shutil import which
from typing import Any, Final, Literal, get_args

from lexalcm.errors import ConfigError, unknown_name

LauncherName = Literal["local", "slurm"]

SLURM_WORKERS: Final = 16
"""So many at most unless told otherwise: a queue is shared."""

SLURM_MINUTES: Final = 720
"""What a worker may take under Slurm unless told otherwise; without a limit of ours submitit asks for five."""

CPUS_PER_WORKER: Final = 4
"""Unless told otherwise; an encoder gains little from more threads than that."""

_SLURM_ONLY: Final = {
    "gpus_per_worker": "--gpus-per-worker",
    "mem_gb": "--mem-gb",
    "time_min": "--time",
    "partition": "--partition",
    "qos": "--qos",
    "account": "--account",
    "constraint": "--constraint",
    "slurm_options": "--slurm-option",
}
"""Options by field."""

_AT_LEAST: Final = {
    "num_workers": ("--workers", 1),
    "nodes": ("--nodes", 1),
    "cpus_per_worker": ("--cpus-per-worker", 1),
    "gpus_per_worker": ("--gpus-per-worker", 0),
    "time_min": ("--time", 1),
    "max_retries": ("--retries", 0),
}

_HAS_OPTION: Final = {
    "partition": "--partition",
    "qos": "--qos",
    "account": "--account",
    "constraint": "--constraint",
    "time": "--time",
    "mem": "--mem-gb",
    "nodes": "--nodes",
    "cpus-per-task": "--cpus-per-worker",
    "gpus-per-node": "--gpus-per-worker",
}
_IS_OURS: Final = frozenset(
    (
        "array",
        "error",
        "ntasks",
        "ntasks-per-node",
        "open-mode",
        "output",
        "parsable",
        "signal",
        "test-only",
        "wait",
        "wrap",
    )
)


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Nothing here changes what the work writes, only where and how fast."""

    launcher: LauncherName = "local"
    """``local``: processes of this machine. ``slurm``: an array of jobs."""

    num_workers: int | None = None
    """Each does its share of the shards. ``None``: :meth:`sized` counts."""

    nodes: int | None = None
    """Under Slurm: so many whole nodes, one worker on each. ``None``: workers go wherever there is room."""

    cpus_per_worker: int | None = None
    """Threads of a local worker, CPUs of one under Slurm. ``None``: the cores shared out, or four under Slurm."""

    gpus_per_worker: int | None = None
    """Under Slurm. Local workers take the machine's GPUs in turn."""

    mem_gb: float | None = None
    """Under Slurm, GB of memory of a worker; ``None``: what the cluster gives."""

    time_min: int | None = None
    """Under Slurm, minutes that a worker may take; ``None``: 12 hours."""

    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None

    slurm_options: Mapping[str, str | None] = field(default_factory=dict)
    """Further options of ``sbatch``, by name without dashes in front; ``None``: an option without a value."""

    max_retries: int = 0
    """How often a worker that died is started again."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured, does not go with the launcher, or Slurm is not here."""
        if self.launcher not in get_args(LauncherName):
            raise ConfigError(f"--launcher: {unknown_name('launcher', self.launcher, get_args(LauncherName))}")
        for name, (option, least) in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{option} must be at least {least}, but is {value}.")
        if self.mem_gb is not None and not 0 < self.mem_gb < math.inf:
            raise ConfigError(f"--mem-gb must be greater than 0, but is {self.mem_gb}.")
        if self.launcher == "local":
            self._check_local()
        else:
            self._check_slurm()

    def _check_local(self) -> None:
        if self.nodes not in (None, 1):
            raise ConfigError(
                f"--launcher local runs on this machine alone, but --nodes is {self.nodes}. "
                "Leave --nodes out, or take --launcher slurm."
            )
        given = [option for name, option in _SLURM_ONLY.items() if getattr(self, name) not in (None, {})]
        if given:
            raise ConfigError(
                f"{', '.join(given)}: of Slurm alone, but --launcher is local. Leave out, or take --launcher slurm."
            )

    def _check_slurm(self) -> None:
        if which("sbatch") is None:
            raise ConfigError(
                "--launcher slurm submits jobs with sbatch, but this machine has no sbatch on PATH.\n"
                "Start it where Slurm is, say on the cluster's login node, or take --launcher local."
            )
        if self.nodes is not None and self.num_workers not in (None, self.nodes):
            raise ConfigError(
                f"--nodes {self.nodes} puts one worker on each node, but --workers is {self.num_workers}. "
                "Leave one of them out."
            )
        for name in self.slurm_options:
            _check_slurm_option(name)

    def sized(self, num_shards: int, *, device: str = "cpu") -> LaunchConfig:
        """Returns a configuration with ``num_workers``, and under Slurm also what else was left open.

        :param num_shards: How many are left to do; there are no more workers than that.
        :param device: Of the work: ``auto``, ``cpu``, ``cuda`` or one of several GPUs, say ``cuda:1``.
        """
        most = max(1, num_shards)
        if self.launcher == "slurm":
            return replace(
                self,
                num_workers=min(self.num_workers or self.nodes or SLURM_WORKERS, most),
                cpus_per_worker=self.cpus_per_worker or CPUS_PER_WORKER,
                gpus_per_worker=int(device == "cuda") if self.gpus_per_worker is None else self.gpus_per_worker,
                time_min=self.time_min or SLURM_MINUTES,
            )
        num_workers = self.num_workers or _num_gpus(device)
        if num_workers is None:
            num_workers = max(1, num_cores() // (self.cpus_per_worker or CPUS_PER_WORKER))
        return replace(self, num_workers=min(num_workers, most))


def num_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _num_gpus(device: str) -> int | None:
    """Returns how many GPUs the work would use, or ``None`` where it computes on the CPU."""
    if device not in ("auto", "cuda"):
        return 1 if device.startswith("cuda") else None
    import torch

    return torch.cuda.device_count() or None


def parse_minutes(text: str) -> int:
    """Returns minutes, rounded up, of a time as Slurm reads it.

    :param text: ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``.
    :raises ConfigError: It is none of these.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip(), flags=re.ASCII)
    if match is None or any(int(part or 0) > 59 for part in match.groups()[2:]):
        raise ConfigError(f'--time "{text}" is not a time. Say minutes (90), HH:MM:SS (01:30:00) or D-HH:MM (1-12:00).')
    days, *rest = match.groups()
    first, second, third = (int(part or 0) for part in rest)
    if days is not None:
        seconds = int(days) * 86_400 + first * 3600 + second * 60 + third
    elif rest[2] is not None:
        seconds = first * 3600 + second * 60 + third
    else:
        seconds = first * 60 + second
    return math.ceil(seconds / 60)


def parse_slurm_options(words: Sequence[str]) -> dict[str, str | None]:
    """Returns ``KEY=VALUE`` by key; ``KEY`` alone is an option without a value.

    :raises ConfigError: A key is not one of ``sbatch``'s form, stands twice, or is set by an option of ours.
    """
    options: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name = key.strip().lstrip("-").replace("_", "-")
        _check_slurm_option(name)
        if name in options:
            raise ConfigError(f"--slurm-option {name} stands there twice.")
        if "\n" in value:
            raise ConfigError(f"--slurm-option {name}: a value is one line.")
        options[name] = value if equals else None
    return options


def _check_slurm_option(name: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9-]*", name) is None:
        raise ConfigError(f'--slurm-option "{name}": expected KEY=VALUE with the long name of an sbatch option as KEY.')
    if name in _HAS_OPTION:
        raise ConfigError(f"--slurm-option {name}: has an option of its own, {_HAS_OPTION[name]}.")
    if name in _IS_OURS:
        raise ConfigError(f"--slurm-option {name}: is set by the launcher, which could not follow its workers else.")


def sbatch_parameters(options: Mapping[str, str | None]) -> dict[str, Any]:
    """Returns ``options`` under the names of submitit's parameters, so that they replace what it would say itself."""
    return {name.replace("-", "_"): True if value is None else value for name, value in options.items()}
