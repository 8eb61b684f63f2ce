"""Checkpoint files that can be read without running what is in them.

fairseq2 writes trainer, optimizer and reader states in a form that only unrestricted unpickling reads, and reads them
so on resume: whoever can write into a run's folder could run code. These write all states in the restricted form and
read nothing else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn, final

import torch
from fairseq2.io import (
    DataNotPicklableError,
    TensorFileDumper,
    TensorFileDumpOptions,
    TensorFileLoader,
    TensorFileLoadOptions,
)
from typing_extensions import override

from lexalcm.checkpoints.torch_file import read_torch_file

_RESTRICTED_PROTOCOL: Final = 2
"""The newest that ``torch.load(weights_only=True)`` understands."""

_RESTORE: Final = "No run has written that. Restore the checkpoint, or remove its folder to go on from the one before."

_PROBED_BYTES: Final = 1 << 20

_FAILED_WRITING: Final = ("inline_container", "cannot be opened", "does not exist")
"""What torch says when it cannot write; why is not told."""


@final
class RestrictedDumper(TensorFileDumper):
    """Writes states that consist of tensors, numbers, texts, lists and mappings."""

    @override
    def dump(self, data: Mapping[str, object], file: Path, options: TensorFileDumpOptions | None = None) -> None:
        """:raises OSError: The disk is full, or cannot be written for another reason."""
        try:
            torch.save(dict(data), file, pickle_protocol=_RESTRICTED_PROTOCOL)
        except (RuntimeError, TypeError, AttributeError) as ex:
            if any(sign in str(ex) for sign in _FAILED_WRITING):
                _raise_reason(file)
            raise DataNotPicklableError() from ex
        # The folder's new name must not reach the disk before what is in it.
        with file.open("rb") as written:
            os.fsync(written.fileno())


@final
class RestrictedLoader(TensorFileLoader):
    """Reads what :class:`RestrictedDumper` writes, whatever the caller allows."""

    def __init__(self) -> None:
        self._put: dict[Path, dict[str, object]] = {}

    def put(self, file: Path, state: dict[str, object]) -> None:
        """Makes ``state`` what is read from ``file``, whatever lies there."""
        self._put[file] = state

    @override
    def load(self, file: Path, options: TensorFileLoadOptions | None = None) -> dict[str, object]:
        """
        :raises FileNotFoundError: As fairseq2 expects it.
        :raises CheckpointError: It is damaged, or holds an object that only running code from the file can make; names
            the file and the class, which an error of fairseq2's would leave out.
        """
        if file in self._put:
            return self._put[file]
        if not file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        location = None if options is None else options.map_location
        mmap = options is not None and options.mmap
        return read_torch_file(file, mmap=mmap, location="cpu" if location is None else location, fix=_RESTORE)


def _raise_reason(file: Path) -> NoReturn:
    """
    :raises OSError: Why a file that torch could not write cannot be written.
    """
    try:
        with file.open("ab") as stream:
            stream.write(bytes(_PROBED_BYTES))
    except OSError as ex:
        raise OSError(ex.errno, ex.strerror, str(file)) from None
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
