"""How far workers are: each keeps one small file of counters, and whoever waits for them adds these up.

Files, not pipes, because a worker may run on another machine.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import monotonic
from typing import Final

SECONDS_BETWEEN: Final = 0.5
"""A worker writes no more often than that."""


@dataclass
class Progress:
    """Of one worker, or the sum over several."""

    num_documents: int = 0
    num_sentences: int = 0

    num_units: int = 0
    """Pieces of work that are done, such as shards."""

    seconds: float = 0.0
    """Since the worker began; of several, of the one that began first."""

    unit: str | None = None
    """What the worker is at; ``None`` between units, and for several."""

    @property
    def documents_per_second(self) -> float:
        return self.num_documents / self.seconds if self.seconds > 0.0 else 0.0

    @property
    def sentences_per_second(self) -> float:
        return self.num_sentences / self.seconds if self.seconds > 0.0 else 0.0


class WorkerProgress:
    """The counters of one worker, written to ``FOLDER/worker-N.json``, each time as a whole.

    A context manager: what was not yet written is written at its end.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"worker-{worker}.json"
        self._counted = Progress()
        self._began = monotonic()
        self._written = float("-inf")

    def add(self, *, documents: int = 0, sentences: int = 0, units: int = 0) -> None:
        """Adds to the counters. Cheap: may be called for every document."""
        self._counted.num_documents += documents
        self._counted.num_sentences += sentences
        self._counted.num_units += units
        if monotonic() - self._written >= SECONDS_BETWEEN:
            self.write()

    def at(self, unit: str | None) -> None:
        """Notes what is worked at now: should the worker die, its report names it."""
        self._counted.unit = unit
        self.write()

    def write(self) -> None:
        now = monotonic()
        self._counted.seconds = now - self._began
        aside = self._path.with_suffix(".aside")
        aside.write_text(json.dumps(asdict(self._counted)), encoding="utf-8")
        os.replace(aside, self._path)
        self._written = now

    def __enter__(self) -> WorkerProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.write()


class ProgressBoard:
    """Reads what all workers wrote to a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Removes what workers of an earlier run left."""
        for path in self._folder.glob("worker-*.json"):
            path.unlink(missing_ok=True)

    def of(self, worker: int) -> Progress:
        """What one worker wrote; zeros before it wrote anything."""
        return _read(self._folder / f"worker-{worker}.json")

    def totals(self) -> Progress:
        """The sum over all workers."""
        found = [_read(path) for path in self._folder.glob("worker-*.json")]
        return Progress(
            num_documents=sum(one.num_documents for one in found),
            num_sentences=sum(one.num_sentences for one in found),
            num_units=sum(one.num_units for one in found),
            seconds=max((one.seconds for one in found), default=0.0),
        )


def _read(path: Path) -> Progress:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Not there yet; or a network file system shows a file before its content.
        return Progress()
    known = {one.name for one in fields(Progress)}
    return Progress(**{name: value for name, value in found.items() if name in known})
