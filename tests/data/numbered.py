"""Documents whose vectors tell where they stand: component 0 is the document, component 1 the sentence, both from 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lexalcm.data.dataset import ConceptParquetDataset, Document
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig

WIDTH = 4
LENGTHS = [3, 2, 4, 1, 5, 2]


def vectors(document: int, length: int) -> np.ndarray:
    x = np.full((length, WIDTH), 0.5, np.float32)
    x[:, 0], x[:, 1] = document + 1, np.arange(length) + 1
    return x


def nested(lengths: list[int] = LENGTHS) -> list[Any]:
    """The documents as Python lists, to be spoilt."""
    return [vectors(i, n).tolist() for i, n in enumerate(lengths)]


def texts(lengths: list[int] = LENGTHS) -> list[Any]:
    return [[f"{i}.{j}" for j in range(n)] for i, n in enumerate(lengths)]


def fixed(leaf: pa.DataType, *, large: bool = False) -> pa.DataType:
    """The column type list<fixed_size_list<leaf>>."""
    return (pa.large_list if large else pa.list_)(pa.list_(leaf, WIDTH))


def write_table(folder: Path, embeddings: pa.Array, *, text: Any = None, per_group: int = 4, **columns: Any) -> Path:
    """Writes one file with a row group of every four documents, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = texts() if text is None else text
    table = pa.table({**columns, "text_sentences": sentences, EMBEDDING_COLUMN: embeddings})
    pq.write_table(table, folder / "part-0.parquet", row_group_size=per_group)
    return folder


def open_dataset(folder: Path | str, **fields: Any) -> ConceptParquetDataset:
    return ConceptParquetDataset(ConceptParquetConfig(path=str(folder), **fields))


def stands_right(document: Document) -> bool:
    """Every vector is where it says it is."""
    expected = vectors(document.row, len(document.concepts))
    return bool(np.array_equal(document.concepts[:, :2].astype(np.float32), expected[:, :2]))
