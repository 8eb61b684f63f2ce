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

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import numpy as np
from fairseq2.datasets import DataReader
from fairseq2.logging import log
from typing_extensions import Self, override

from lexalcm.data.batch import Affixes, ConceptBatch, Piece, WindowIds, collate, dummy_batch
from lexalcm.data.discover import SourceFiles
from lexalcm.data.mixture import Mixture, Take
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.prefetch import Producer
from lexalcm.data.saved_position import belonging, check_belonging, to_save
from lexalcm.data.sources import ReadingConfig
from lexalcm.data.stream import WindowStream
from lexalcm.data.validate import BadRowCounter
from lexalcm.errors import DataError


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
        self._belongs = belonging(sources, reading, rank=rank, world_size=world_size)
        self._state = self._mixture.state()
        self._producer: Producer | None = None
        self._counts = {"steps": 0, "batches": 0, "documents": 0, "concepts": 0}
        self._told_bad = self._told_left_out = 0

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
                    on_left_out=self._count_left_out,
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
            self._producer = Producer(self._make_batches, self._reading.prefetch)
        batches: list[ConceptBatch] = []
        state = self._state
        while len(batches) < self._num_accumulate:
            made = self._producer.next()
            if made is None:
                break
            batch, state = made
            batches.append(batch)
        if self._world_size > 1:
            assert self._any_rank is not None
            if not self._any_rank(bool(batches)):
                self._end_epoch()
            while len(batches) < self._num_accumulate:
                batches.append(dummy_batch(self._concept_dim, pack=self._reading.pack, dtype=self._reading.dtype))
        elif not batches:
            self._end_epoch()
        self._tell_left_out()
        # Not before: an error in the second batch of a step must leave the first one to be read again.
        self._state = state
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
        self._tell_left_out()
        if self._counts["steps"] == 0:
            reasons = {**self.left_out, **self.bad_rows.by_reason}
            listed = _listed(reasons) or "filters leave no row"
            raise DataError(
                f"An epoch of the dataset has no document to train on ({listed}).\n"
                f"Look at its `filters` and weights, and at the lengths that `dataset.reading` allows."
            )
        raise StopIteration

    def _tell_left_out(self) -> None:
        # Each doubling is told, so that the log stays short.
        if self.bad_rows.num_bad > 2 * self._told_bad:
            self._told_bad = self.bad_rows.num_bad
            log.warning(
                "Data - {:,} of {:,} documents seen so far are bad and skipped ({}).",
                self._told_bad,
                self.bad_rows.seen,
                self.bad_rows.summary(),
            )
        left_out = dict(self.left_out)  # the thread that reads ahead adds to it
        if sum(left_out.values()) > 2 * self._told_left_out:
            self._told_left_out = sum(left_out.values())
            log.info("Data - left out so far for their lengths: {}.", _listed(left_out))

    def _make_batches(self) -> Iterator[tuple[ConceptBatch, dict[str, Any]]]:
        reading = self._reading
        concepts, documents = reading.concepts_per_batch, reading.documents_per_batch
        for takes in self._mixture.batches(concepts=concepts, documents=documents):
            batch = self._collate(takes)
            batch.skipped = self._mixture.take_skipped()
            yield batch, self._mixture.state()

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
                    Piece(
                        values,
                        pool.starts[some],
                        pool.lengths[some],
                        pool.is_first[some],
                        pool.is_last[some],
                        num_source=None if pool.num_source is None else pool.num_source[some],
                    )
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
            min_context_len=self._reading.min_context_len,
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
        # The same words as at the resume, so that the log shows whether nothing lies between.
        log.info("Data - saved {}.", self._place())
        return to_save(self._belongs, self._state, self._counts)

    def _place(self) -> str:
        before = self._state.get("before", [])
        return (
            f"in epoch {self._state['epoch']}"
            + (f", which {len(before[-1])} rank(s) left to {self._world_size}," if before else "")
            + f" at {'; '.join(self._mixture.places(self._state))}: {self._counts['documents']:,} documents and "
            f"{self._counts['concepts']:,} concepts consumed so far"
        )

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """
        :raises DataError: The state is of another number of ranks, of other files, or of another order. For another
            number, :func:`lexalcm.data.saved_position.reshard` makes states of its own.
        """
        check_belonging(state_dict.get("belongs"), self._belongs)
        self._stop()
        self._mixture.take_skipped()  # of what was read ahead, and will be read again
        position = state_dict["position"]
        assert isinstance(position, dict)
        self._mixture.load(position)
        self._state = self._mixture.state()
        counts = state_dict["counts"]
        assert isinstance(counts, dict)
        self._counts = dict(counts)
        log.info("Data - resuming {}.", self._place())

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


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())
