"""Reads PyTorch files as data: tensors, numbers, texts and containers, and never an object that would run code.

Nor does a file take more memory than it is large, whatever it claims to hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import torch
from torch import Tensor

from lexalcm.checkpoints.file_kind import TORCH_STARTS, looks_like
from lexalcm.errors import CheckpointError
from lexalcm.shown import shown


def read_torch_file(
    path: Path,
    what: str = "checkpoint",
    *,
    mmap: bool = False,
    location: torch.device | str = "cpu",
    fix: str = "Where you trust it, save its tensors alone: torch.save({name: tensor, ...}, path).",
) -> dict[str, Any]:
    """Reads a mapping that ``torch.save`` wrote.

    :param what: What the file should be, for messages.
    :param mmap: Leave tensors in the file until they are used; without effect on files of PyTorch before 1.6.
    :param location: The device that tensors are read onto.
    :param fix: What to do about objects, for the message.
    :raises CheckpointError: It is missing, cut short, something else, no mapping of names, claims more numbers than it
        has, or holds an object of a class that only running code from the file can make. Names the file, and such a
        class.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
        num_bytes = path.stat().st_size
        found = f"{what} `{path}` ({num_bytes:,} bytes)"
    except OSError as ex:
        raise CheckpointError(f"{what} `{path}` cannot be read: {ex.strerror or ex}.") from ex
    if not head.startswith(TORCH_STARTS):
        raise CheckpointError(f"{found} is not a PyTorch file: {looks_like(head)}.")
    is_archive = head.startswith(b"PK")
    if is_archive and (fault := _fault_of_archive(path, num_bytes)) is not None:
        raise CheckpointError(f"{found} {fault}")
    try:
        content = torch.load(path, map_location=location, weights_only=True, mmap=mmap and is_archive)
    except UnpicklingError as ex:
        raise CheckpointError(f"{found} {_reason(ex, fix)}") from ex
    # What a damaged file trips over first depends on where it is damaged, and so does the type of the error.
    except Exception as ex:
        raise CheckpointError(f"{found} is damaged or cut short: {_brief(ex)}.\nCopy or download it again.") from ex
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{found} must hold a mapping of names to tensors, but holds a {type(content).__name__}.")
    for name in content:
        if not isinstance(name, str):
            raise CheckpointError(
                f"{found} must hold a mapping of names to tensors, but one name is {shown(repr(name))}."
            )
    if (fault := _fault_of_tensors(content)) is not None:
        raise CheckpointError(f"{found} {fault}")
    return dict(content)


def _fault_of_archive(path: Path, num_bytes: int) -> str | None:
    """What is wrong with the table of contents of a file of PyTorch 1.6 or later."""
    try:
        with ZipFile(path) as archive:
            parts = archive.infolist()
            pickled = [archive.read(part) for part in parts if _is_pickle(part)]
    except (BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # PyTorch tells more of damage
    names = [part.filename.rpartition("/")[2] for part in parts]
    if "constants.pkl" in names:
        return (
            "is a TorchScript archive: a program with its weights, and programs of files are not run.\n"
            "Where you trust it, save its tensors alone: torch.save(torch.jit.load(path).state_dict(), other_path)."
        )
    if "data.pkl" not in names:
        return f"is a zip archive, but none of PyTorch: it holds {shown(', '.join(names[:4]) or 'nothing')}."
    # Mapped into memory, its bytes would be taken for numbers; unpacked, it may be a thousand times as large.
    packed = next((part for part in parts if part.compress_type != ZIP_STORED), None)
    if packed is not None:
        return (
            f"has the compressed part `{shown(packed.filename)}`, {packed.file_size:,} bytes when unpacked, which "
            f"torch.save does not write.\nWhere you trust it, unpack it and make an uncompressed zip archive of it."
        )
    if sum(part.file_size for part in parts) > num_bytes:
        return "has parts that lie over each other: it claims more bytes than it has."
    # Made of a number, one takes as much memory as the number says.
    if any(b"\nbytearray\n" in data for data in pickled):
        return "holds an object of the class bytearray, which no checkpoint does."
    return None


def _is_pickle(part: ZipInfo) -> bool:
    return part.filename.endswith("data.pkl") and part.compress_type == ZIP_STORED


def _fault_of_tensors(content: Mapping[str, Any]) -> str | None:
    waiting: list[Any] = [content]
    # A container may stand in many places, or in itself: unfolded, a small file has no end.
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif isinstance(value, Tensor) and (fault := _fault_of_tensor(value)) is not None:
            return fault
    return None


def _fault_of_tensor(tensor: Tensor) -> str | None:
    if tensor.device.type == "meta":
        return f"holds a tensor of the shape {list(tensor.shape)} without its numbers (on the device meta)."
    if tensor.layout != torch.strided or tensor.is_quantized:
        return f"holds a sparse or quantized tensor of the shape {list(tensor.shape)}, which is not read here."
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"holds a tensor of the shape {list(tensor.shape)} with fewer numbers in the file than that."
    return None


def _reason(ex: UnpicklingError, fix: str) -> str:
    refused = re.search(r"(?i)unsupported (?:global: )?global ([\w.]+)", str(ex))
    if refused is None:
        return "is damaged, or holds more than tensors, numbers, texts and containers of them."
    return f"holds an object of the class {refused[1]}, which cannot be read without running code from the file.\n{fix}"


def _brief(ex: Exception) -> str:
    lines = str(ex).strip().splitlines()
    return shown(lines[0].rstrip(".")) if lines else type(ex).__name__
