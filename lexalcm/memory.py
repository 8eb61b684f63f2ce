"""How much memory a device still has, and one clear refusal where that is not enough."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from lexalcm.errors import ConfigError

if TYPE_CHECKING:
    import torch

_CGROUP_FOLDER: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")

_UNLIMITED: Final = 1 << 60
"""Version 1 of control groups writes a number near 2^63 where there is no limit."""


def available_memory(device: torch.device | str) -> int | None:
    """The bytes that can still be allocated on a device, ``None`` where that is not known.

    On the CPU it is the least of what the machine, the control group (of a container, say) and ``ulimit -v`` leave.
    """
    kind = str(device).partition(":")[0]
    if kind == "cuda":
        # Here, since `fairseq2 lcm doctor` asks for the CPU's where torch itself cannot be imported.
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # PyTorch keeps what was freed for itself, and gives it out again.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(left_by_limit().values()) if kind == "cpu" else None


def left_by_limit() -> dict[str, int]:
    """The bytes that each limit on this process leaves, by what sets the limit; those that set none are left out."""
    left = {"the machine": psutil.virtual_memory().available}
    for name, numbers in (("the control group", _left_by_cgroups()), ("ulimit -v", _left_by_ulimit())):
        if (least := min(numbers, default=None)) is not None:
            left[name] = least
    return left


def check_fits(num_bytes: int, device: torch.device | str, *, what: str) -> None:
    """
    :param num_bytes: That will be allocated.
    :param what: That needs them, for the message: ``The model of card x``.
    :raises ConfigError: The device has less; names both numbers. Where it is not known what it has, all fits.
    """
    available = available_memory(device)
    if available is None or num_bytes <= available:
        return
    raise ConfigError(
        f"{what} needs {format_bytes(num_bytes)} of memory on {device}, but only {format_bytes(max(available, 0))} are "
        f"available.\nTake another device (--device), half of it (--dtype bfloat16), or a smaller batch."
    )


def check_can_be_mapped(num_bytes: int, *, what: str) -> None:
    """
    :param num_bytes: Of address space, into which files are mapped; only ``ulimit -v`` bounds it.
    :param what: That needs them, for the message.
    :raises ConfigError: Less is left; names both numbers.
    """
    left = min(_left_by_ulimit(), default=num_bytes)
    if num_bytes > left:
        raise ConfigError(
            f"{what} needs {format_bytes(num_bytes)} of address space, but `ulimit -v` leaves "
            f"{format_bytes(max(left, 0))}.\nRaise that limit."
        )


def format_bytes(num_bytes: int) -> str:
    """As a user reads it, in GiB or MiB."""
    return f"{num_bytes / 2**30:,.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:,.1f} MiB"


def _left_by_ulimit() -> Iterator[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield limit - psutil.Process().memory_info().vms


def _left_by_cgroups(folder: Path = _CGROUP_FOLDER, own: Path = _OWN_CGROUPS) -> Iterator[int]:
    """What each control group that this process is in leaves, of either version.

    :param folder: Where they are mounted.
    :param own: The file that names this process's.
    """
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, prefix = folder, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            root, limit, usage, prefix = folder / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        group = root / path.strip("/")
        # Each group lies in another one, whose limit counts too. A container sees its own group as the root.
        for place in (group, *group.parents):
            if place.is_relative_to(root):
                yield from _left_by_cgroup(place, limit, usage, prefix)


def _left_by_cgroup(group: Path, limit_file: str, usage_file: str, prefix: str) -> Iterator[int]:
    limit, usage = _read_number(group / limit_file), _read_number(group / usage_file)
    if limit is None or usage is None or limit >= _UNLIMITED:
        return
    # Pages of files count as used, but give way.
    yield limit - max(usage - _file_pages(group / "memory.stat", prefix), 0)


def _file_pages(file: Path, prefix: str) -> int:
    if not file.is_file():
        return 0
    fields = dict(line.split(" ", 1) for line in file.read_text().splitlines())
    return sum(int(fields.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def _read_number(file: Path) -> int | None:
    """``None`` where there is no such file, or no limit in it."""
    text = file.read_text().strip() if file.is_file() else ""
    return int(text) if text.isdigit() else None
