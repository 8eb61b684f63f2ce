"""The windows of one source in an epoch's order, a pool at a time, from any point on.

Shapes: V vectors of a chunk, C their width, W windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import numpy as np

from lexalcm.data.discover import DataFile
from lexalcm.data.epoch_plan import EpochPlan, Place, PlannedPool
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.order import Unit
from lexalcm.data.rows import Rows, read_unit
from lexalcm.data.sources import ReadingConfig, SourceConfig
from lexalcm.data.validate import BadRowCounter


@dataclass(frozen=True)
class Pool:
    """Documents read together, cut into windows and shuffled."""

    parts: list[np.ndarray]
    """Arrays ``[V, C]`` as stored, one for each chunk that was read: joining them would cost a copy of everything."""

    part: np.ndarray
    """int64 ``[W]``, as the next seven: the index in ``parts``."""

    starts: np.ndarray

    lengths: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    file: np.ndarray
    row: np.ndarray
    window: np.ndarray

    ends: np.ndarray
    """int64 ``[W]``: concepts up to and with each window."""

    skipped: Counter[str]
    """Documents that were read with the others and left out as bad, by kind."""

    num_source: np.ndarray | None
    """int64 ``[W]``: concepts at the start that are the document's source; ``None`` where there are no targets."""


class WindowStream:
    """A cursor over the windows that a rank reads of one source: epoch, pool, window."""

    def __init__(
        self,
        files: list[tuple[DataFile, SourceConfig]],
        reading: ReadingConfig,
        *,
        number: int,
        concept_dim: int,
        rank: int,
        world_size: int,
        counter: BadRowCounter,
        executor: ThreadPoolExecutor,
        open_files: OpenFiles,
        on_left_out: Callable[[str, int], None],
    ) -> None:
        """
        :param number: Tells the sources of a mixture apart in the order.
        :param on_left_out: Told how many documents a length limit left out, by its name.
        """
        self._files = files
        self._reading = reading
        self._number = number
        self._concept_dim = concept_dim
        self._rank = rank
        self._counter = counter
        self._executor = executor
        self._open_files = open_files
        self._on_left_out = on_left_out
        self._skipped: Counter[str] = Counter()
        self._plan = EpochPlan(
            [(f.rows, f.components) for f, _ in files],
            world_size,
            seed=self._seed,
            stream=number,
            pool_components=reading.shuffle_window * concept_dim,
            window_components=reading.max_seq_len * concept_dim,
        )
        self._pending: dict[int, list[Future[list[Rows]]]] = {}
        self.move(epoch=1, pool=0, window=0)

    def move(self, *, epoch: int, pool: int, window: int, before: Sequence[Sequence[Place]] = ()) -> None:
        """Puts the cursor somewhere; what was read ahead is dropped.

        :param before: Where ranks of other numbers left the epoch, as :meth:`EpochPlan.pools` takes it.
        """
        self.epoch, self.pool_number, self.window = epoch, pool, window
        for futures in self._pending.values():
            for future in futures:
                future.cancel()
        self._pending.clear()
        self._pools = self._plan.pools(epoch, self._rank, before)
        self._current: Pool | None = None
        self._is_new = False
        self._from_start = pool == window == 0
        self._gave_windows = False
        self.is_taken_over = bool(before)
        """Whether this is what ranks of another number left of an epoch."""

    def place(self, pool: int) -> str:
        """Where a pool of the epoch under way begins, for messages."""
        if pool >= len(self._pools):
            return "its end"
        unit = self._pools[pool].units[0]
        return f"{self._files[unit.file][0].relative}, row group {unit.first_group}"

    @property
    def _seed(self) -> int | None:
        return self._reading.seed if self._reading.shuffle else None

    def pool(self) -> Pool | None:
        """The pool under the cursor with windows left in it, ``None`` at the end of the epoch."""
        while True:
            if self._current is None:
                if self.pool_number >= len(self._pools):
                    return None
                self._current = self._load(self.pool_number)
                self._is_new = self.window == 0
            if self.window < len(self._current.starts):
                self._gave_windows = True
                return self._current
            self._note_skipped()
            self._current = None
            self.pool_number += 1
            self.window = 0

    def take_skipped(self) -> Counter[str]:
        """Returns how many documents were left out as bad, by kind, in the pools that were begun or passed over since the
        last call. A run that resumes within a pool was told of it before it was killed."""
        if self._current is not None and self.window > 0:
            self._note_skipped()
        skipped, self._skipped = self._skipped, Counter()
        return skipped

    def _note_skipped(self) -> None:
        if self._is_new and self._current is not None:
            self._skipped += self._current.skipped
        self._is_new = False

    def gives_nothing(self) -> bool:
        """Whether this epoch has no window at all for this rank. To be asked at its end."""
        if self._gave_windows or self.is_taken_over:
            return False
        if not self._from_start:
            # A resumed run may have come in behind the last window.
            at = {"epoch": self.epoch, "pool": self.pool_number, "window": self.window}
            skipped = self._skipped.copy()
            self.move(epoch=self.epoch, pool=0, window=0)
            empty = self.pool() is None
            self.move(**at)
            self._skipped = skipped
            return empty
        return True

    @property
    def source(self) -> str:
        """Name of the source, or of the first of those that are joined."""
        return str(self._files[0][1].name)

    def next_epoch(self) -> None:
        """Moves to the start of the next epoch."""
        self.move(epoch=self.epoch + 1, pool=0, window=0)

    def _start(self, number: int) -> None:
        """Begins to read a pool in the workers' threads."""
        if number >= len(self._pools) or number in self._pending:
            return
        futures: list[Future[list[Rows]]] = []
        for unit in self._pools[number].units:
            futures.append(self._executor.submit(self._read, unit, self._before(unit, number) if not futures else None))
        self._pending[number] = futures

    def _before(self, unit: Unit, number: int) -> Future[list[Rows]] | None:
        """The reading of the part of a row group that ends where ``unit`` begins, if it is under way."""
        if unit.start == 0 or number - 1 not in self._pending:
            return None
        last = self._pools[number - 1].units[-1]
        same = (last.file, last.last_group, last.stop) == (unit.file, unit.first_group, unit.start)
        return self._pending[number - 1][-1] if same else None

    def _read(self, unit: Unit, before: Future[list[Rows]] | None) -> list[Rows]:
        if before is not None:
            # It was submitted earlier, so it has a thread; behind it, reading goes on where it stopped.
            wait([before])
        file, source = self._files[unit.file]
        rows = read_unit(self._open_files, file, source, unit, concept_dim=self._concept_dim, counter=self._counter)
        # Text has served its purpose once it was checked against the embeddings.
        return [replace(r, sentences=None) for r in rows]

    def _load(self, number: int) -> Pool:
        self._start(number)
        # The next pool's turn comes as soon as a worker has nothing left to do for this one.
        self._start(number + 1)
        futures = self._pending[number]
        planned = self._pools[number]
        parts = [(unit.file, rows) for unit, future in zip(planned.units, futures) for rows in future.result()]
        del self._pending[number]
        return self._build(parts, planned)

    def _build(self, parts: list[tuple[int, Rows]], planned: PlannedPool) -> Pool:
        lengths = _concatenate([rows.lengths for _, rows in parts])
        starts = _concatenate([rows.starts for _, rows in parts])
        row = _concatenate([rows.rows for _, rows in parts])
        part = np.repeat(np.arange(len(parts)), np.asarray([len(rows.rows) for _, rows in parts], dtype=np.int64))
        file = np.asarray([index for index, _ in parts], dtype=np.int64)[part]
        num_source = None
        if self._files[0][1].target_column is not None:
            num_source = _concatenate([rows.num_source for _, rows in parts if rows.num_source is not None])
        keep = self._within_limits(lengths, num_source)
        if self._reading.hold_out_every is not None:
            keep &= row % self._reading.hold_out_every != 0
        lengths, starts, row, file, part = lengths[keep], starts[keep], row[keep], file[keep], part[keep]
        # Each document gives ceil(length / max_seq_len) windows, the last one the shorter; one with a target gives one.
        limit = self._reading.max_seq_len
        count = -(-lengths // limit)
        owner = np.repeat(np.arange(len(lengths)), count)
        window = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        order = planned.order(len(owner), seed=self._seed, stream=self._number)
        owner, window = owner[order], window[order]
        window_lengths = np.minimum(lengths[owner] - window * limit, limit)
        return Pool(
            [rows.values for _, rows in parts],
            part=part[owner],
            starts=starts[owner] + window * limit,
            lengths=window_lengths,
            is_first=window == 0,
            is_last=window == count[owner] - 1,
            file=file[owner],
            row=row[owner],
            window=window,
            ends=np.cumsum(window_lengths),
            # Who began the pool told of them.
            skipped=Counter() if planned.left else sum((rows.skipped for _, rows in parts), Counter()),
            num_source=None if num_source is None else num_source[keep][owner],
        )

    def _within_limits(self, lengths: np.ndarray, num_source: np.ndarray | None) -> np.ndarray:
        keep = np.ones(len(lengths), dtype=bool)
        for name, outside in self._limits(lengths, num_source):
            left_out = int(np.count_nonzero(outside & keep))
            if left_out:
                self._on_left_out(name, left_out)
                keep &= ~outside
        return keep

    def _limits(self, lengths: np.ndarray, num_source: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
        reading = self._reading
        yield "empty", lengths == 0
        yield "shorter than min_document_len", lengths < reading.min_document_len
        if reading.max_document_len is not None:
            yield "longer than max_document_len", lengths > reading.max_document_len
        if num_source is not None:
            yield "without a target", lengths == num_source
            yield "longer than max_seq_len", lengths > reading.max_seq_len


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.int64, copy=False) if parts else np.zeros(0, np.int64)
