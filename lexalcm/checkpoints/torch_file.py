"""Reads PyTorch files as data: tensors, numbers, texts and containers, and never an object that would run code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lexalcm.checkpoints.file_kind import TORCH_STARTS, looks_like
from lexalcm.errors import CheckpointError


def read_torch_file(path: Path, what: str = "checkpoint", *, mmap: bool = False) -> dict[str, Any]:
    """Reads a mapping that ``torch.save`` wrote, onto the CPU.

    :param what: What the file should be, for messages.
    :param mmap: Leave tensors in the file until they are used; without effect on files of PyTorch before 1.6.
    :raises CheckpointError: It is missing, cut short, something else, no mapping, or holds an object of a class that
        only running code from the file can make. Names the file, and such a class.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
        found = f"{what} `{path}` ({path.stat().st_size:,} bytes)"
    except OSError as ex:
        raise CheckpointError(f"{what} `{path}` cannot be read: {ex.strerror or ex}.") from ex
    if not head.startswith(TORCH_STARTS):
        raise CheckpointError(f"{found} is not a PyTorch file: {looks_like(head)}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and head.startswith(b"PK"))
    except UnpicklingError as ex:
        raise CheckpointError(f"{found} {_reason(ex)}") from ex
    # What a damaged file trips over first depends on where it is damaged, and so does the type of the error.
    except Exception as ex:
        raise CheckpointError(f"{found} is damaged or cut short: {_brief(ex)}.\nCopy or download it again.") from ex
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{found} must hold a mapping of names to tensors, but holds a {type(content).__name__}.")
    return dict(content)


def _reason(ex: UnpicklingError) -> str:
    refused = re.search(r"(?i)unsupported (?:global: )?global ([\w.]+)", str(ex))
    if refused is None:
        return "is damaged, or holds more than tensors, numbers, texts and containers of them."
    return (
        f"holds an object of the class {refused[1]}, which cannot be read without running code from the file.\n"
        "Where you trust it, save its tensors alone: torch.save({name: tensor, ...}, path)."
    )


def _brief(ex: Exception) -> str:
    lines = str(ex).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(ex).__name__
