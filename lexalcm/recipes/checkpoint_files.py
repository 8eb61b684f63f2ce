"""Checkpoint files that can be read without running what is in them.

fairseq2 writes trainer, optimizer and reader states in a form that only unrestricted unpickling reads, and reads them
so on resume: whoever can write into a run's folder could run code. These write all states in the restricted form and
read nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Final, final

import torch
from fairseq2.io import (
    CorruptFileError,
    DataNotPicklableError,
    TensorFileDumper,
    TensorFileDumpOptions,
    TensorFileLoader,
    TensorFileLoadOptions,
)
from typing_extensions import override

_RESTRICTED_PROTOCOL: Final = 2
"""The newest that ``torch.load(weights_only=True)`` understands."""


@final
class RestrictedDumper(TensorFileDumper):
    """Writes states that consist of tensors, numbers, texts, lists and mappings."""

    @override
    def dump(self, data: Mapping[str, object], file: Path, options: TensorFileDumpOptions | None = None) -> None:
        try:
            torch.save(dict(data), file, pickle_protocol=_RESTRICTED_PROTOCOL)
        except (RuntimeError, TypeError, AttributeError) as ex:
            raise DataNotPicklableError() from ex


@final
class RestrictedLoader(TensorFileLoader):
    """Reads what :class:`RestrictedDumper` writes, whatever the caller allows."""

    @override
    def load(self, file: Path, options: TensorFileLoadOptions | None = None) -> dict[str, object]:
        location = None if options is None else options.map_location
        try:
            mmap = options is not None and options.mmap
            return torch.load(file, location, weights_only=True, mmap=mmap)  # type: ignore[arg-type]
        except (RuntimeError, EOFError, UnpicklingError) as ex:
            raise CorruptFileError(file) from ex
