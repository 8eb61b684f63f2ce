"""One command at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lexalcm.errors import ConfigError


@contextmanager
def folder_lock(file: Path, *, folder: Path | None = None) -> Iterator[None]:
    """Holds the lock of a folder while it is open; the system gives it back when the process ends, however it does.

    :param file: Where the lock is noted; it stays there.
    :param folder: What it locks, for the message; by default the file's own.
    :raises ConfigError: Another command holds it; names process and machine.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise ConfigError(
                f"Another command is at work in {folder or file.parent} ({stream.read().strip()}). Wait for it, or end it."
            ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        yield
