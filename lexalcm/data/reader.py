"""The data reader of training: batches in an exact, resumable order, made ready in the background.

The reader's state is where its cursors stand after the last batch it *returned*, whatever was made ready beyond. A
batch is cut from the stream of windows at a cursor, so a resumed run cuts the same batches; load followed by save
changes nothing. The reader counts its own epochs: fairseq2 saves a checkpoint at an epoch's end after ``reset()`` but
before its own epoch number advances.

Ranks hold different numbers of concepts, and bad rows show up only when they are read, so no plan made ahead can tell
how many batches a rank has. Ranks therefore ask each other, once a step, whether any has data left; one that has none
hands out a batch that weighs nothing, and all end the epoch in the same step. fairseq2's own ways lose data or hang
here.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, Final, NoReturn

import numpy as np
from fairseq2.datasets import DataReader
from fairseq2.logging import log
from typing_extensions import Self, override

from lexalcm.data.batch import Affixes, ConceptBatch, Piece, WindowIds, collate, dummy_batch
from lexalcm.data.discover import SourceFiles
from lexalcm.data.mixture import Mixture, Take
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.sources import ReadingConfig
from lexalcm.data.stream import WindowStream
from lexalcm.data.validate import BadRowCounter
from lexalcm.errors import DataError

_STATE_VERSION: Final = 2

_PLAN_FIELDS: Final = (
    "max_seq_len",
    "min_document_len",
    "max_document_len",
    "shuffle",
    "shuffle_window",
    "seed",
    "hold_out_every",
)
"""What a saved position depends on: with another value it would be another place."""


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
        self._open_files = OpenFiles()
        self._names, streams, weights = self._create_streams(sources)
        self._mixture = Mixture(streams, weights, seed=reading.seed)
        self._fingerprint = _fingerprint(sources)
        self._state = self._mixture.state()
        self._producer: _Producer | None = None
        self._plan = {**{name: getattr(reading, name) for name in _PLAN_FIELDS}, "sources": _describe_sources(sources)}
        self._counts = {"steps": 0, "batches": 0, "documents": 0, "concepts": 0}
        self._told_bad = 0

    def _create_streams(self, sources: list[SourceFiles]) -> tuple[list[str], list[WindowStream], list[float] | None]:
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
                    open_files=self._open_files,
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
        if self._world_size > 1:
            assert self._any_rank is not None
            if not self._any_rank(bool(batches)):
                self._end_epoch()
            while len(batches) < self._num_accumulate:
                batches.append(dummy_batch(self._concept_dim, pack=self._reading.pack, dtype=self._reading.dtype))
        elif not batches:
            self._end_epoch()
        self._tell_bad_rows()
        targets = sum(batch.num_targets for batch in batches)
        for batch in batches:
            batch.num_step_targets, batch.num_step_batches = targets, len(batches)
            self._count(batch)
        self._counts["steps"] += 1
        return batches

    def _count(self, batch: ConceptBatch) -> None:
        if batch.ids is not None:
            self._counts["batches"] += 1
            self._counts["documents"] += int(np.count_nonzero(batch.ids.window == 0))
            self._counts["concepts"] += batch.layout.num_concepts

    def _end_epoch(self) -> NoReturn:
        """
        :raises StopIteration: The epoch is over.
        :raises DataError: It had nothing to train on, and so would every other.
        """
        self._tell_bad_rows()
        if self._counts["steps"] == 0:
            reasons = {**self.left_out, **self.bad_rows.by_reason}
            listed = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items()) or "filters leave no row"
            raise DataError(
                f"An epoch of the dataset has no document to train on ({listed}).\n"
                f"Look at its `filters` and `weights`, and at min_document_len and max_document_len of `dataset.reading`."
            )
        raise StopIteration

    def _tell_bad_rows(self) -> None:
        if self.bad_rows.num_bad > 2 * self._told_bad:
            # Each doubling is told, so that the log stays short.
            self._told_bad = self.bad_rows.num_bad
            log.warning(
                "Data - {:,} of {:,} documents seen so far are bad and skipped ({}).",
                self._told_bad,
                self.bad_rows.seen,
                self.bad_rows.summary(),
            )

    def _make_batches(self) -> Iterator[tuple[ConceptBatch, dict[str, Any]]]:
        reading = self._reading
        concepts, documents = reading.concepts_per_batch, reading.documents_per_batch
        for takes in self._mixture.batches(concepts=concepts, documents=documents):
            yield self._collate(takes), self._mixture.state()

    def _collate(self, takes: list[Take]) -> ConceptBatch:
        pieces: list[Piece] = []
        file, row, window = [], [], []
        for take in takes:
            pool = take.pool
            # Within a batch the order of documents means nothing; sorted, each part is gathered from at one go.
            windows = take.windows[np.argsort(pool.part[take.windows], kind="stable")]
            parts, begins = np.unique(pool.part[windows], return_index=True)
            for part, some in zip(parts.tolist(), np.split(windows, begins[1:])):
                values = pool.parts[part]
                pieces.append(
                    Piece(values, pool.starts[some], pool.lengths[some], pool.is_first[some], pool.is_last[some])
                )
            file.append(pool.file[windows] + self._first_name[take.stream])
            row.append(pool.row[windows])
            window.append(pool.window[windows])
        ids = WindowIds(self._names, np.concatenate(file), np.concatenate(row), np.concatenate(window))
        return collate(
            pieces,
            affixes=self._affixes,
            pack=self._reading.pack,
            dtype=self._reading.dtype,
            ids=ids,
            pin_memory=self._pin_memory,
        )

    @override
    def reset(self) -> None:
        """Begins the next epoch; in a mixture, sources that are not exhausted go on where they are."""
        self._stop()
        self._mixture.load(self._state)
        self._mixture.next_epoch()
        self._state = self._mixture.state()
        self._counts["steps"] = 0

    @override
    def state_dict(self) -> dict[str, object]:
        return {
            "version": _STATE_VERSION,
            "rank": self._rank,
            "world_size": self._world_size,
            "fingerprint": self._fingerprint,
            "plan": self._plan,
            "position": self._state,
            "counts": dict(self._counts),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """:raises DataError: The state is of another number of ranks, of other files, or of another order."""
        if state_dict.get("version") != _STATE_VERSION:
            raise DataError(
                f"The saved position of the data has version {state_dict.get('version')}, but this release reads version "
                f"{_STATE_VERSION}. Resume with the release that saved it."
            )
        world_size, rank = state_dict["world_size"], state_dict["rank"]
        if (world_size, rank) != (self._world_size, self._rank):
            raise DataError(
                f"The saved position of the data is that of rank {rank} of {world_size}, but this is rank {self._rank} of "
                f"{self._world_size}. Resume with {world_size} rank(s)."
            )
        if state_dict["fingerprint"] != self._fingerprint:
            raise DataError(
                f"The dataset is not the one of the checkpoint: its files {state_dict['fingerprint']}, now "
                f"{self._fingerprint} (names, sizes and row groups).\n"
                f"Resume on the same files, or begin a new run from the checkpoint's model."
            )
        saved_plan = state_dict["plan"]
        assert isinstance(saved_plan, dict)
        for name, value in self._plan.items():
            if saved_plan.get(name) != value:
                raise DataError(
                    f"The saved position of the data is that of {name} {saved_plan.get(name)}, but it is {value} now.\n"
                    f"Resume with the same settings, or begin a new run from the checkpoint's model."
                )
        self._stop()
        position = state_dict["position"]
        assert isinstance(position, dict)
        self._mixture.load(position)
        self._state = self._mixture.state()
        counts = state_dict["counts"]
        assert isinstance(counts, dict)
        self._counts = dict(counts)
        log.info(
            "Data - resuming in epoch {} at {}: {:,} documents and {:,} concepts consumed so far.",
            position["epoch"],
            "; ".join(self._mixture.places()),
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
    count = 0
    for source in sources:
        for file in source.files:
            count += 1
            digest.update(f"{source.config.name}\0{file.relative}\0{file.size}\0{file.rows}\n".encode())
    return f"{count}:{digest.hexdigest()[:16]}"


def _describe_sources(sources: list[SourceFiles]) -> str:
    """What decides which rows of the files are read."""
    described = []
    for source in sources:
        config = source.config
        filters = "".join(f", {f.column} {f.operator} {f.value!r}" for f in config.filters)
        weight = "" if config.weight is None else f", weight {config.weight:g}"
        text = "" if config.text_column is None else f", {config.text_column}"
        described.append(f"{config.name} ({config.embedding_column}{text}{filters}{weight})")
    return "; ".join(described)
