"""The header of a safetensors file: what is in it, read without its tensors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from lexalcm.checkpoints.file_kind import TORCH_STARTS, looks_like
from lexalcm.errors import CheckpointError
from lexalcm.shown import shown

_KINDS: Final = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True)
class SafetensorsHeader:
    names: tuple[str, ...]
    """Of the tensors."""

    facts: dict[str, str]
    """What its writer noted."""


def read_safetensors_header(
    path: Path, what: str = "checkpoint", *, wanted: Collection[str] | None = None
) -> SafetensorsHeader:
    """
    :param what: What the file should be, for messages.
    :param wanted: Names of the tensors that will be read; ``None``: all.
    :raises CheckpointError: It is missing, cut short, something else, or holds numbers of a type that is not read here:
        packed or scaled ones, such as ``F8_E4M3``, mean nothing without what unpacks them.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
        found = f"{what} `{path}` ({path.stat().st_size:,} bytes)"
        with safe_open(path, framework="pt") as opened:
            header = SafetensorsHeader(tuple(opened.keys()), opened.metadata() or {})
            kinds = {n: opened.get_slice(n).get_dtype() for n in header.names if wanted is None or n in wanted}
    except OSError as ex:
        raise CheckpointError(f"{what} `{path}` cannot be read: {ex.strerror or ex}.") from ex
    except SafetensorError as ex:
        if head[8:9] == b"{" and not head.startswith(TORCH_STARTS):
            raise CheckpointError(f"{found} is damaged or cut short: {shown(ex)}.\nCopy or download it again.") from ex
        raise CheckpointError(f"{found} is not a safetensors file: {looks_like(head)}.") from ex
    for name, kind in kinds.items():
        if kind not in _KINDS:
            raise CheckpointError(
                f"{found}: `{shown(name)}` holds numbers of the type {kind}, which is not read here. Types: "
                f"{', '.join(_KINDS)}."
            )
    return header
