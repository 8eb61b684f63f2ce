"""Which source gives the next window, and where a batch ends.

Without weights there is one stream. With weights a source is drawn for every window; an epoch ends when the first
source is exhausted, and the others carry over. A source without any window would end every epoch at its start, and is
an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lexalcm.data.saved_position import places_before
from lexalcm.data.stream import Pool, WindowStream
from lexalcm.errors import DataError

_BLOCK: Final = 4096


@dataclass(frozen=True)
class Take:
    """Windows taken together from one pool."""

    stream: int

    pool: Pool

    windows: np.ndarray
    """int64: their indices in the pool."""


class Mixture:
    """Cuts batches from one or several streams."""

    def __init__(self, streams: list[WindowStream], weights: list[float] | None, *, seed: int) -> None:
        self._streams = streams
        self._weights = None if weights is None else np.asarray(weights) / np.sum(weights)
        self._seed = seed
        self._epoch = 1
        self._drawn = 0
        self._block: tuple[int, np.ndarray] | None = None
        self._before: list[list[dict[str, Any]]] = []

    def batches(self, *, concepts: int | None, documents: int | None) -> Iterator[list[Take]]:
        """Yields the windows of each batch up to the end of the epoch; the last batch may be smaller.

        :raises DataError: A source with a weight has nothing to give.
        """
        cut = self._cut_one if self._weights is None else self._cut_mixed
        while True:
            takes, more = cut(concepts, documents)
            if takes:
                yield takes
            if not more:
                return

    def _cut_one(self, concepts: int | None, documents: int | None) -> tuple[list[Take], bool]:
        stream = self._streams[0]
        takes: list[Take] = []
        room_concepts, room_documents = concepts, documents
        while (pool := stream.pool()) is not None:
            first = stream.window
            if room_documents is not None:
                stop = min(first + room_documents, len(pool.starts))
            else:
                assert room_concepts is not None
                before = int(pool.ends[first - 1]) if first else 0
                stop = int(np.searchsorted(pool.ends, before + room_concepts, side="right"))
            if stop == first:
                return takes, True
            takes.append(Take(0, pool, np.arange(first, stop)))
            stream.window = stop
            if stop < len(pool.starts):
                return takes, True
            if room_documents is not None:
                room_documents -= stop - first
                if room_documents == 0:
                    return takes, True
            elif room_concepts is not None:
                room_concepts -= int(pool.lengths[first:stop].sum())
        return takes, False

    def _cut_mixed(self, concepts: int | None, documents: int | None) -> tuple[list[Take], bool]:
        taken: dict[tuple[int, int], tuple[Pool, list[int]]] = {}
        size = count = 0
        while True:
            number = self._choice()
            stream = self._streams[number]
            pool = stream.pool()
            if pool is None:
                if stream.gives_nothing():
                    raise DataError(
                        f"Source {stream.source} has a weight, but no document to train on: neither filters, length "
                        f"limits nor bad rows have left one for this rank in epoch {stream.epoch}.\n"
                        f"Loosen its `filters`, leave the source out, or train with fewer ranks than it has documents."
                    )
                return self._as_takes(taken), False
            length = int(pool.lengths[stream.window])
            full = count == documents if documents is not None else size + length > (concepts or 0)
            if full:
                return self._as_takes(taken), True
            taken.setdefault((number, id(pool)), (pool, []))[1].append(stream.window)
            stream.window += 1
            self._drawn += 1
            size, count = size + length, count + 1

    @staticmethod
    def _as_takes(taken: dict[tuple[int, int], tuple[Pool, list[int]]]) -> list[Take]:
        return [Take(number, pool, np.asarray(windows)) for (number, _), (pool, windows) in taken.items()]

    def _choice(self) -> int:
        """The source of the window after ``drawn`` others: a function of the seed and that number."""
        block, place = divmod(self._drawn, _BLOCK)
        if self._block is None or self._block[0] != block:
            rng = np.random.default_rng([self._seed, 0, block, 2])
            self._block = (block, rng.choice(len(self._streams), size=_BLOCK, p=self._weights))
        return int(self._block[1][place])

    def next_epoch(self) -> None:
        """Exhausted streams begin again."""
        self._epoch += 1
        for stream in self._streams:
            if self._weights is None or stream.pool() is None:
                stream.next_epoch()

    def take_skipped(self) -> Counter[str]:
        """Returns how many documents of all streams were left out as bad since the last call, by kind."""
        return sum((stream.take_skipped() for stream in self._streams), Counter())

    def state(self) -> dict[str, Any]:
        """Plain numbers that :meth:`load` takes."""
        state: dict[str, Any] = {
            "epoch": self._epoch,
            "drawn": self._drawn,
            "streams": [{"epoch": s.epoch, "pool": s.pool_number, "window": s.window} for s in self._streams],
        }
        if any(stream.is_taken_over for stream in self._streams):
            state["before"] = self._before
        return state

    def places(self, state: dict[str, Any]) -> list[str]:
        """Where each stream stands in a state of the epoch under way, for messages."""
        return [stream.place(at["pool"]) for stream, at in zip(self._streams, state["streams"], strict=True)]

    def load(self, state: dict[str, Any]) -> None:
        """Puts every cursor where it was."""
        self._epoch, self._drawn = int(state["epoch"]), int(state["drawn"])
        self._before = state.get("before", [])
        for number, (stream, place) in enumerate(zip(self._streams, state["streams"], strict=True)):
            before = places_before(self._before, number, epoch=place["epoch"])
            stream.move(epoch=place["epoch"], pool=place["pool"], window=place["window"], before=before)
