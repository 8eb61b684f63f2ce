"""The data reader of training: batches in an exact, resumable order, made ready in the background.

The reader's state is where its cursors stand after the last batch it *returned*, whatever was made ready beyond. A batch
is cut from the stream of windows at a cursor, so a resumed run cuts the same batches; load followed by save changes
nothing. The reader counts its own epochs: fairseq2 saves a checkpoint at an epoch's end after ``reset()`` but before its
own epoch number advances.

Ranks hold different numbers of concepts, and bad rows show up only when they are read, so no plan made ahead can tell how
many batches a rank has. Ranks therefore ask each other, once a step, whether any has data left; one that has none hands
out a batch that weighs nothing, and all end the epoch in the same step. fairseq2's own ways lose data or hang here.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, Final

import numpy as np
from fairseq2.datasets import DataReader
from fairseq2.logging import log
from typing_extensions import Self, override

from lexalcm.data.batch import Affixes, ConceptBatch, WindowIds, collate, dummy_batch
from lexalcm.data.discover import SourceFiles
from lexalcm.data.mixture import Mixture, Take
from lexalcm.data.sources import ReadingConfig
from lexalcm.data.stream import WindowStream
from lexalcm.data.validate import BadRowCounter
from lexalcm.errors import DataError

_STATE_VERSION: Final = 1


class ConceptReader(DataReader[ConceptBatch]):
    """Made by :meth:`lexalcm.data.dataset.ConceptParquetDataset.create_reader`."""

    def __init__(
        self,
        sources: list[SourceFiles],
        concept_dim: int,
        bad_rows: BadRowCounter,
        reading: ReadingConfig,
        affixes: Affixes,
        *,
        rank: int,
        world_size: int,
        num_accumulate: int,
        pin_memory: bool,
        any_rank: Callable[[bool], bool] | None,
    ) -> None:
        assert world_size == 1 or any_rank is not None, "several ranks must end an epoch together"
        self._reading = reading
        self._affixes = affixes
        self._concept_dim = concept_dim
        self._rank = rank
        self._world_size = world_size
        self._num_accumulate = num_accumulate
        self._pin_memory = pin_memory
        self._any_rank = any_rank
        self.bad_rows = bad_rows
        """Documents seen and skipped, with reasons."""
        self.left_out: dict[str, int] = {}
        """Documents that a length limit left out, by its name."""
        self._executor = ThreadPoolExecutor(reading.num_workers, thread_name_prefix="decode")
        self._names, streams, weights = self._create_streams(sources)
        self._mixture = Mixture(streams, weights, seed=reading.seed)
        self._fingerprint = _fingerprint(sources)
        self._state = self._mixture.state()
        self._producer: _Producer | None = None
        self._counts = {"batches": 0, "documents": 0, "concepts": 0}

    def _create_streams(
        self, sources: list[SourceFiles]
    ) -> tuple[list[str], list[WindowStream], list[float] | None]:
        sources = [s for s in sources if s.files]
        weighted = sources[0].config.weight is not None
        groups = [[s] for s in sources] if weighted else [sources]
        names: list[str] = []
        streams = []
        self._first_name = []
        for number, group in enumerate(groups):
            files = [(file, s.config) for s in group for file in s.files]
            self._first_name.append(len(names))
            names += [f"{source.name}:{file.relative}" for file, source in files]
            streams.append(
                WindowStream(
                    files,
                    self._reading,
                    number=number,
                    concept_dim=self._concept_dim,
                    rank=self._rank,
                    world_size=self._world_size,
                    counter=self.bad_rows,
                    executor=self._executor,
                    on_skipped=self._count_left_out,
                )
            )
        return names, streams, [float(s.config.weight or 0.0) for s in sources] if weighted else None

    def _count_left_out(self, why: str, count: int) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + count

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> list[ConceptBatch]:
        if self._producer is None:
            self._producer = _Producer(self._make_batches, self._reading.prefetch)
        batches: list[ConceptBatch] = []
        while len(batches) < self._num_accumulate:
            made = self._producer.next()
            if made is None:
                break
            batch, self._state = made
            batches.append(batch)
        if self._any_rank is not None and self._world_size > 1:
            if not self._any_rank(bool(batches)):
                raise StopIteration
            while len(batches) < self._num_accumulate:
                batches.append(dummy_batch(self._concept_dim, pack=self._reading.pack, dtype=self._reading.dtype))
        elif not batches:
            raise StopIteration
        targets = sum(batch.num_targets for batch in batches)
        for batch in batches:
            batch.num_step_targets, batch.num_step_batches = targets, len(batches)
        self._counts["batches"] += len(batches)
        self._counts["documents"] += sum(b.layout.num_documents for b in batches if b.num_targets)
        self._counts["concepts"] += sum(b.num_targets for b in batches)
        return batches

    def _make_batches(self) -> Iterator[tuple[ConceptBatch, dict[str, Any]]]:
        reading = self._reading
        concepts, documents = reading.concepts_per_batch, reading.documents_per_batch
        for takes in self._mixture.batches(concepts=concepts, documents=documents):
            batch = self._collate(takes)
            if self._pin_memory:
                batch.pin_memory()
            yield batch, self._mixture.state()

    def _collate(self, takes: list[Take]) -> ConceptBatch:
        def joined(field: str) -> np.ndarray:
            return np.concatenate([getattr(t.pool, field)[t.windows] for t in takes])

        if all(take.pool is takes[0].pool for take in takes):
            values, starts, lengths = takes[0].pool.values, joined("starts"), joined("lengths")
        else:
            # A batch that spans pools gathers from each: joining whole pools would copy everything for a few windows.
            spans = [(t.pool.values, s, n) for t in takes for s, n in zip(t.pool.starts[t.windows], t.pool.lengths[t.windows])]
            values, lengths = np.concatenate([v[s : s + n] for v, s, n in spans]), joined("lengths")
            starts = np.cumsum(lengths) - lengths
        first_names = np.concatenate([np.full(len(t.windows), self._first_name[t.stream]) for t in takes])
        ids = WindowIds(self._names, first_names + joined("file"), joined("row"), joined("window"))
        return collate(
            values,
            starts,
            lengths,
            is_first=joined("is_first"),
            is_last=joined("is_last"),
            affixes=self._affixes,
            pack=self._reading.pack,
            dtype=self._reading.dtype,
            ids=ids,
        )

    @override
    def reset(self) -> None:
        """Begins the next epoch; in a mixture, sources that are not exhausted go on where they are."""
        self._stop()
        self._mixture.load(self._state)
        self._mixture.next_epoch()
        self._state = self._mixture.state()

    @override
    def state_dict(self) -> dict[str, object]:
        return {
            "version": _STATE_VERSION,
            "rank": self._rank,
            "world_size": self._world_size,
            "fingerprint": self._fingerprint,
            "position": self._state,
            "counts": dict(self._counts),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """:raises DataError: The state is of another number of ranks, or of other files."""
        world_size, rank = state_dict["world_size"], state_dict["rank"]
        if (world_size, rank) != (self._world_size, self._rank):
            raise DataError(
                f"The saved position of the data is that of rank {rank} of {world_size}, but this is rank {self._rank} of "
                f"{self._world_size}. Resume with {world_size} rank(s)."
            )
        if state_dict["fingerprint"] != self._fingerprint:
            raise DataError(
                "The dataset's files are not those that the checkpoint was trained on: names or row counts differ.\n"
                "Resume on the same files, or begin a new run from the checkpoint's model."
            )
        self._stop()
        position = state_dict["position"]
        assert isinstance(position, dict)
        self._mixture.load(position)
        self._state = self._mixture.state()
        counts = state_dict["counts"]
        assert isinstance(counts, dict)
        self._counts = dict(counts)
        where = position["streams"][0]
        log.info(
            "Data - resuming in epoch {} at row-group pool {}, window {}: {:,} documents and {:,} concepts consumed so far.",
            position["epoch"],
            where["pool"],
            where["window"],
            self._counts["documents"],
            self._counts["concepts"],
        )

    @property
    @override
    def num_accumulate(self) -> int:
        return self._num_accumulate

    def close(self) -> None:
        """Ends the background threads."""
        self._stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _stop(self) -> None:
        if self._producer is not None:
            self._producer.stop()
            self._producer = None


class _Producer:
    """Runs an iterator in a thread, at most ``depth`` items ahead; with depth 0 in the caller's own."""

    def __init__(self, make: Callable[[], Iterator[Any]], depth: int) -> None:
        self._iterator = make()
        self._queue: Queue[tuple[Any, BaseException | None]] = Queue(maxsize=max(depth, 1))
        self._stopped = Event()
        self._ended = False
        self._thread = Thread(target=self._run, daemon=True, name="batches") if depth else None
        # Also called when the interpreter exits, which a thread inside Arrow's or torch's code would abort.
        self._end = weakref.finalize(self, _end_thread, self._thread, self._queue, self._stopped)
        if self._thread is not None:
            self._thread.start()

    def next(self) -> Any | None:
        """Returns the next item, ``None`` at the end; raises what the iterator raised."""
        if self._ended:
            return None
        if self._thread is None:
            item = next(self._iterator, None)
        else:
            item, error = self._queue.get()
            if error is not None:
                self._ended = True
                raise error
        self._ended = item is None
        return item

    def stop(self) -> None:
        """Ends the thread; items made ready are dropped."""
        self._end()

    def _run(self) -> None:
        try:
            for item in self._iterator:
                self._queue.put((item, None))
                if self._stopped.is_set():
                    return
            self._queue.put((None, None))
        except BaseException as error:  # handed to the thread that asks for the next item
            self._queue.put((None, error))


def _end_thread(thread: Thread | None, queue: Queue[Any], stopped: Event) -> None:
    stopped.set()
    while thread is not None and thread.is_alive():
        try:
            queue.get(timeout=0.05)
        except Empty:
            continue


def _fingerprint(sources: list[SourceFiles]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        for file in source.files:
            digest.update(f"{source.config.name}\0{file.relative}\0{file.rows}\n".encode())
    return digest.hexdigest()[:16]
