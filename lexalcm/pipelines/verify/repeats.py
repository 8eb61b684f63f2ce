"""Finds equal documents among any number of them, in bounded memory.

Each document leaves a record of 40 bytes with a 128-bit hash. A million records stay in memory; beyond that they are
dealt to 256 files by a byte of the hash and compared file by file, so that n documents need n / 256 records (160 kB a
million) at a time. Equal is what has equal hashes: among 10^9 documents two different ones have the same hash with a
probability of about 10^-21.

Shapes: R records.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

RECORD: Final = np.dtype([("hash", "<u8", (2,)), ("other", "<u8"), ("file", "<i4"), ("split", "<i4"), ("row", "<i8")])
"""``other``: a hash of what may differ among equal ones; ``split``: a number, -1 for none; ``row``: of the file."""

MOST_IN_MEMORY: Final = 1 << 20
_NUM_BUCKETS: Final = 256


def records(hashes: list[bytes], rows: np.ndarray, *, file: int, split: int, other: np.ndarray | int = 0) -> np.ndarray:
    """
    :param hashes: 16 bytes each, one a row.
    :param rows: int64 ``[R]``.
    :returns: :data:`RECORD` ``[R]``.
    """
    table = np.zeros(len(hashes), RECORD)
    table["hash"] = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)
    table["other"], table["file"], table["split"], table["row"] = other, file, split, rows
    return table


class RepeatFinder:
    """Collects records, then yields groups of equal ones. A context manager: it may have files to remove."""

    def __init__(self, *, most_in_memory: int = MOST_IN_MEMORY) -> None:
        self._most_in_memory = most_in_memory
        self._held: list[np.ndarray] = []
        self._num_held = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, table: np.ndarray) -> None:
        """Takes in records ``[R]``."""
        self._held.append(table)
        self._num_held += len(table)
        if self._num_held > self._most_in_memory:
            self._spill()

    def groups(self) -> Iterator[np.ndarray]:
        """Yields the records of each group of equal documents, by file and row. Groups come in the order of their
        first one where all fit into memory, in that of their hashes beyond."""
        if self._folder is None:
            yield from _equal(np.concatenate(self._held) if self._held else np.zeros(0, RECORD))
            return
        self._spill()
        for bucket in range(_NUM_BUCKETS):
            path = self._path(bucket)
            if path.exists():
                yield from _equal(np.fromfile(path, RECORD))

    def __enter__(self) -> RepeatFinder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _spill(self) -> None:
        if not self._held:
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lexalcm-verify-")
        table = np.concatenate(self._held)
        buckets = (table["hash"][:, 0] >> np.uint64(56)).astype(np.int64)
        order = np.argsort(buckets, kind="stable")
        edges = np.searchsorted(buckets[order], np.arange(_NUM_BUCKETS + 1))
        for bucket in np.flatnonzero(np.diff(edges)).tolist():
            with self._path(bucket).open("ab") as handle:
                handle.write(table[order[edges[bucket] : edges[bucket + 1]]].tobytes())
        self._held, self._num_held = [], 0

    def _path(self, bucket: int) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{bucket:03d}"


def _equal(table: np.ndarray) -> Iterator[np.ndarray]:
    order = np.lexsort((table["row"], table["file"], table["hash"][:, 1], table["hash"][:, 0]))
    hashes = table["hash"][order]
    edges = np.flatnonzero(np.r_[True, (hashes[1:] != hashes[:-1]).any(axis=1), True]) if len(table) else np.zeros(1)
    repeated = np.flatnonzero(np.diff(edges) > 1)
    found = [order[edges[i] : edges[i + 1]] for i in repeated.tolist()]
    found.sort(key=lambda group: (int(table["file"][group[0]]), int(table["row"][group[0]])))
    return (table[group] for group in found)
