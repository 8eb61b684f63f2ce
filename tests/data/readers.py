"""Small datasets for the training reader, and what a test asks of its batches.

Vectors tell where they stand: component 0 is the document, component 1 the sentence, both from 1.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lexalcm.data.batch import ConceptBatch
from lexalcm.data.reader import ConceptReader
from lexalcm.data.sources import ReadingConfig
from lexalcm.data.write import NewDocument, write_documents

R = TypeVar("R")

LENGTHS = [3, 7, 1, 12, 5, 5, 2, 9, 4, 30, 6, 8, 1, 2, 11, 3, 5, 7, 4, 6, 2, 3, 9]


def write(
    folder: Path, lengths: list[int], *, first: int = 0, name: str = "part-0.parquet", per_group: int = 20
) -> Path:
    def concepts(document: int, length: int) -> np.ndarray:
        x = np.ones((length, 4), np.float32)
        x[:, 0], x[:, 1] = document + 1, np.arange(length) + 1
        return x

    documents = [NewDocument(["s"] * n, concepts(first + i, n)) for i, n in enumerate(lengths)]
    write_documents(folder / name, documents, dtype="float32", concepts_per_row_group=per_group)
    return folder


def reading(**fields: Any) -> ReadingConfig:
    return ReadingConfig(
        **{"concepts_per_batch": 24, "max_seq_len": 16, "shuffle_window": 40, "num_workers": 1, **fields}
    )


def names(batches: list[ConceptBatch]) -> list[str]:
    return [name for batch in batches if batch.ids is not None for name in batch.ids.names()]


def epoch(reader: ConceptReader) -> list[list[ConceptBatch]]:
    steps = list(reader)
    reader.reset()
    return steps


def contents(batch: ConceptBatch) -> list[tuple[int, int]]:
    """(document, sentence) of every concept, as its vector tells."""
    return [(int(d) - 1, int(s) - 1) for d, s in batch.concepts[:, :2].tolist()]


def walk(reader: ConceptReader, count: int) -> list[Any]:
    """So many steps of a trainer: the names of a batch list, or the end of an epoch."""
    taken: list[Any] = []
    while len(taken) < count:
        try:
            taken.append(names(next(reader)))
        except StopIteration:
            reader.reset()
            taken.append("end of epoch")
    return taken


def saved(reader: ConceptReader) -> dict[str, Any]:
    """What comes back from a checkpoint: plain values, none of them shared with the reader."""
    return json.loads(json.dumps(reader.state_dict()))


def record(reader: ConceptReader, count: int) -> tuple[list[Any], list[list[dict[str, Any]]]]:
    """Steps of a trainer, and the states that a checkpoint before each may hold."""
    taken: list[Any] = []
    states = [[saved(reader)]]
    while len(taken) < count:
        try:
            taken.append(names(next(reader)))
            states.append([saved(reader)])
        except StopIteration:
            at_end = saved(reader)
            reader.reset()
            taken.append("end of epoch")
            states[-1].append(at_end)
            states.append([saved(reader)])
    return taken, states


def on_ranks(world_size: int, run: Callable[[int, Callable[[bool], bool]], R]) -> list[R]:
    """Calls ``run(rank, any_rank)`` in one thread a rank, with a collective that waits for all."""
    flags = [False] * world_size
    barrier = threading.Barrier(world_size, timeout=30)

    def run_rank(rank: int) -> R:
        def any_rank(flag: bool) -> bool:
            flags[rank] = flag
            barrier.wait()
            told = any(flags)
            barrier.wait()
            return told

        return run(rank, any_rank)

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run_rank, range(world_size)))
