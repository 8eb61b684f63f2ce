"""Small supervised datasets whose vectors tell where they stand: component 0 is the document, component 1 the sentence,
both from 1, and component 2 is 1 in a source, 2 in a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lexalcm.data.batch import ConceptBatch
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ConceptParquetConfig, SourceConfig

COLUMNS = {
    "embedding_column": "prompt_emb",
    "text_column": "prompt",
    "target_column": "answer_emb",
    "target_text_column": "answer",
}
LENGTHS = [(3, 2), (1, 4), (0, 3), (5, 1), (2, 2), (4, 6), (1, 1), (2, 5), (3, 3), (6, 2), (2, 1), (1, 2)]
"""Of source and target."""


def vectors(document: int, length: int, side: int, dtype: type = np.float32) -> np.ndarray:
    x = np.full((length, 4), 0.5, dtype)
    x[:, 0], x[:, 1], x[:, 2] = document + 1, np.arange(length) + 1, side
    return x


def nested(lengths: list[tuple[int, int]], *, first: int = 0) -> tuple[list[Any], list[Any]]:
    """Sources and targets as Python lists, to be spoilt."""
    sources, targets = zip(*lengths)
    return (
        [vectors(first + i, n, 1).tolist() for i, n in enumerate(sources)],
        [vectors(first + i, n, 2).tolist() for i, n in enumerate(targets)],
    )


def write_pairs(
    folder: Path,
    lengths: list[tuple[int, int]] = LENGTHS,
    *,
    first: int = 0,
    name: str = "part-0.parquet",
    spoilt: dict[str, Any] | None = None,
    types: tuple[pa.DataType, pa.DataType] = (pa.float32(), pa.float32()),
    per_group: int = 4,
) -> Path:
    """Writes one file, and returns the folder.

    :param spoilt: Columns to put in the place of the right ones, or beside them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = dict(zip(("prompt_emb", "answer_emb"), nested(lengths, first=first)))
    columns["prompt"] = [[f"p{first + i}.{j}" for j in range(n)] for i, (n, _) in enumerate(lengths)]
    columns["answer"] = [[f"a{first + i}.{j}" for j in range(n)] for i, (_, n) in enumerate(lengths)]
    columns.update(spoilt or {})
    for column, leaf in zip(("prompt_emb", "answer_emb"), types):
        columns[column] = pa.array(columns[column], pa.list_(pa.list_(leaf, 4)))
    for column in ("prompt", "answer"):
        columns[column] = pa.array(columns[column], pa.list_(pa.string()))
    pq.write_table(pa.table(columns), folder / name, row_group_size=per_group)
    return folder


def open_pairs(folder: Path, **fields: Any) -> ConceptParquetDataset:
    return ConceptParquetDataset(ConceptParquetConfig(path=str(folder), **{**COLUMNS, **fields}))


def weighted_pairs(folder: Path) -> ConceptParquetDataset:
    sources = []
    for name, count, weight in (("few", 1, 2.0), ("many", 4, 1.0)):
        write_pairs(folder / name, LENGTHS * count)
        sources.append(SourceConfig(path=str(folder / name), weight=weight))
    return ConceptParquetDataset(ConceptParquetConfig(sources=sources, **COLUMNS))


def documents_of(batch: ConceptBatch) -> list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
    """Context and targets of each document, every concept by the first three components of its vector."""
    assert batch.layout.source_lengths is not None
    assert batch.num_targets == int(batch.target_mask.sum())
    found = []
    for concepts, mask in zip(*(x.split(list(batch.layout.lengths)) for x in (batch.concepts, batch.target_mask))):
        told = [tuple(int(c) for c in vector) for vector in concepts[:, :3].tolist()]
        count = int((~mask).sum())
        assert mask.tolist() == [False] * count + [True] * (len(told) - count), "targets stand at the end"
        found.append((told[:count], told[count:]))
    return found
