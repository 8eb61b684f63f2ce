"""What launching asks of workers, be they processes of this machine or jobs of a cluster."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, Final

from submitit.core.core import Job, PicklingExecutor

_TAIL_BYTES: Final = 4096
_TAIL_CHARACTERS: Final = 200


class Workers(PicklingExecutor):
    """An executor of submitit that remembers which job is which worker's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.jobs: dict[int, Job[Any]] = {}
        """By worker; the last one, where it was started again."""

        self._handles: list[Job[Any]] = []

    def submit(self, fn: Any, *args: Any, **kwargs: Any) -> Job[Any]:
        handle = super().submit(fn, *args, **kwargs)
        self._handles.append(handle)
        return handle

    def last_words(self, worker: int) -> str:
        """The last line of a worker's log, after a colon; nothing where there is none."""
        try:
            with self.log_of(worker).open("rb") as stream:
                stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = stream.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {last[:_TAIL_CHARACTERS]}" if last else ""

    def let_go(self) -> None:
        """Keeps submitit from cancelling, noisily and once more, what it has not seen end."""
        for handle in self._handles:
            handle.cancel_at_deletion(False)

    @abstractmethod
    def log_of(self, worker: int) -> Path:
        """What a worker wrote to its standard streams."""

    @abstractmethod
    def how_it_ended(self, worker: int) -> str:
        """In words, of a worker that ended without a result."""

    @abstractmethod
    def stop(self) -> None:
        """Ends all workers."""
