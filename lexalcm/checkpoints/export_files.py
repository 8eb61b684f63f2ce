"""Files of an export: written aside, and moved to their places together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module

from lexalcm.errors import ConfigError

Writer = Callable[[Path], object]
"""Writes one file, at the path it is given."""


@dataclass(frozen=True)
class ExportFiles:
    """What one model is in one format."""

    writers: Mapping[str, Writer]
    """By name of the file, in the order of writing: what names other files comes last."""

    notes: tuple[str, ...] = ()
    """What a user should know before handing the files on."""


def stored_state(model: Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The model's state on the CPU.

    :param dtype: Of its parameters; buffers, statistics of concepts among them, keep theirs.
    """
    parameters = {name for name, _ in model.named_parameters()}
    return {
        name: value.detach().to("cpu", dtype if name in parameters else value.dtype).contiguous()
        for name, value in model.state_dict().items()
    }


def write_export(files: ExportFiles, folder: Path, *, overwrite: bool = False) -> None:
    """
    :raises ConfigError: One of the files exists and must not be replaced, or ``folder`` is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"OUT must be a folder, but {folder} is a file.")
    existing = [name for name in files.writers if (folder / name).exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"{folder} holds {' and '.join(existing)} already. Export into another folder, or replace with --overwrite."
        )
    aside = folder / f".export.{os.getpid()}"
    aside.mkdir(parents=True)
    try:
        for name, write in files.writers.items():
            write(aside / name)
        for name in files.writers:
            os.replace(aside / name, folder / name)
    finally:
        shutil.rmtree(aside)
