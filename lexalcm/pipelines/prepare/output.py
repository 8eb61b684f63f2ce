"""Writes what becomes of a shard: a file a split, all of them moved to their places when the last one is complete."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from stopes.utils.sharding.abstract_shards import OutputDatasetConfig, PartitionedDataMapperState, Shard

from lexalcm.data.write_table import ParquetTableWriter
from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.output_schema import SPLIT_COLUMN

_MOST_SPLITS: Final = 64
"""Each has a file open, and a row group in memory."""


class ShardFiles:
    """The files of one shard, ``split=NAME/part-NNNNN.parquet``, written aside."""

    def __init__(self, folder: Path, staging: Path, name: str, embedding_columns: Sequence[str]) -> None:
        """
        :param folder: Of the dataset.
        :param staging: Where files are written until the shard is complete, on the same file system.
        :param name: Of the files.
        """
        self._folder, self._staging, self._name = folder, staging, name
        self._columns = tuple(embedding_columns)
        self._writers: dict[str, ParquetTableWriter] = {}

    def write(self, table: pa.Table) -> None:
        """:param table: In the output's schema, with the split of each row in :data:`SPLIT_COLUMN`."""
        splits = table.column(SPLIT_COLUMN)
        rows = table.drop_columns([SPLIT_COLUMN])
        for split in sorted(pc.unique(splits).to_pylist()):
            self._writer(split, rows.schema).write(rows.filter(pc.equal(splits, split)))

    def commit(self) -> dict[str, int]:
        """Gives the files their names.

        :returns: Their sizes in bytes, by path below the dataset's folder.
        """
        paths = [writer.close() for _, writer in sorted(self._writers.items())]
        self._writers = {}
        return {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in paths}

    def discard(self) -> None:
        """Leaves nothing of the shard."""
        for writer in self._writers.values():
            writer.discard()
        self._writers = {}

    def _writer(self, split: str, schema: pa.Schema) -> ParquetTableWriter:
        if split not in self._writers:
            if len(self._writers) >= _MOST_SPLITS:
                raise DataError(
                    f"The input names more than {_MOST_SPLITS} splits, the last one `{split[:60]}`: this is no column of "
                    f"splits. Name another one (--split-column)."
                )
            # Two machines may have processes of the same number.
            aside = f"{self._name}.{split}.{socket.gethostname()}.{os.getpid()}.tmp"
            self._writers[split] = ParquetTableWriter(
                self._folder / f"split={quote(split, safe='')}" / f"{self._name}.parquet",
                schema,
                embedding_columns=self._columns,
                aside=self._staging / aside,
            )
        return self._writers[split]


@dataclass
class ConceptOutput(OutputDatasetConfig):
    """Hands each mapped window on to the files of the shard at hand, which the worker opens and closes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.files: ShardFiles | None = None

    def write_batch(
        self,
        batch: pa.Table,
        iteration_index: Sequence[int],
        metadata: Mapping[str, Any] | None = None,
        state_checkpoint: PartitionedDataMapperState | None = None,
    ) -> list[Path]:
        assert self.files is not None
        self.files.write(batch)
        return []

    def reload_state(self, shard: Shard) -> None:
        """A shard is done whole or not at all."""
        return None
