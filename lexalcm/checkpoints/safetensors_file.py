"""The header of a safetensors file: what is in it, read without its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lexalcm.checkpoints.file_kind import TORCH_STARTS, looks_like
from lexalcm.errors import CheckpointError


@dataclass(frozen=True)
class SafetensorsHeader:
    names: tuple[str, ...]
    """Of the tensors."""

    facts: dict[str, str]
    """What its writer noted."""


def read_safetensors_header(path: Path, what: str = "checkpoint") -> SafetensorsHeader:
    """
    :param what: What the file should be, for messages.
    :raises CheckpointError: It is missing, cut short, or something else.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
        found = f"{what} `{path}` ({path.stat().st_size:,} bytes)"
        with safe_open(path, framework="pt") as opened:
            return SafetensorsHeader(tuple(opened.keys()), opened.metadata() or {})
    except OSError as ex:
        raise CheckpointError(f"{what} `{path}` cannot be read: {ex.strerror or ex}.") from ex
    except SafetensorError as ex:
        if head[8:9] == b"{" and not head.startswith(TORCH_STARTS):
            raise CheckpointError(f"{found} is damaged or cut short: {ex}.\nCopy or download it again.") from ex
        raise CheckpointError(f"{found} is not a safetensors file: {looks_like(head)}.") from ex
