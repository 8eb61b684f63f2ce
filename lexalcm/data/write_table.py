"""Writes Arrow tables of documents as one parquet file, in row groups that a reader can hold.

Shapes: R documents of a table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lexalcm.errors import DataError

CONCEPTS_PER_ROW_GROUP: Final = 16_384
"""What a reader decodes at a time: 32 MiB of SONAR's concepts in float16."""

_MOST_COMPONENTS: Final = 2**28
"""Bound of a row group, far below the 2^31 child values at which 32-bit list offsets overflow."""

_PAGE_BYTES: Final = 1 << 24
_FEWEST_VALUES: Final = 1 << 10
_MOST_VALUES: Final = 1 << 16


class ParquetTableWriter:
    """One file, written aside and then renamed: what stands under its name is complete.

    Rows are buffered until they fill a row group; a document is never divided.
    """

    def __init__(
        self,
        path: str | Path,
        schema: pa.Schema,
        *,
        embedding_columns: Sequence[str],
        concepts_per_row_group: int = CONCEPTS_PER_ROW_GROUP,
        aside: Path | None = None,
    ) -> None:
        """
        :param embedding_columns: Columns of lists of vectors, whose lengths are counted together.
        :param concepts_per_row_group: Vectors of a row group; a longer document has one of its own.
        :param aside: Where the file is written until it is complete, on the same file system; by default beside it.
        :raises DataError: An embedding column is not in the schema.
        """
        self.path = Path(path)
        self.num_rows = 0
        missing = [name for name in embedding_columns if name not in schema.names]
        if missing:
            raise DataError(f"{path}: there is no column `{missing[0]}` to write embeddings of.")
        self._columns = tuple(embedding_columns)
        self._schema = schema
        width = max(_width(schema.field(name).type) for name in self._columns) if self._columns else 1
        self._limit = max(1, min(concepts_per_row_group, _MOST_COMPONENTS // width))
        self._aside = aside or self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._held: list[pa.Table] = []
        self._num_held = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Takes any number of rows, whose columns and types are those of the schema.

        :raises DataError: They are others.
        """
        if table.schema != self._schema:
            table = self._in_order(table)
        lengths_R = self._lengths(table)
        start, size = 0, self._num_held
        for row, length in enumerate(lengths_R.tolist()):
            if size and size + length > self._limit:
                self._hold(table.slice(start, row - start))
                self._flush()
                start, size = row, 0
            size += length
        self._hold(table.slice(start))
        self._num_held = size

    def close(self) -> Path:
        """Writes what is buffered and gives the file its name; without rows it holds the schema alone."""
        self._flush()
        self._open(self._schema.empty_table()).close()
        os.replace(self._aside, self.path)
        self._writer = None
        return self.path

    def discard(self) -> None:
        """Removes what was written aside; a file of that name from before stays."""
        self._held, self._num_held = [], 0
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._aside.unlink(missing_ok=True)

    def __enter__(self) -> ParquetTableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _in_order(self, table: pa.Table) -> pa.Table:
        names = self._schema.names
        if sorted(table.schema.names) != sorted(names):
            raise DataError(f"{self.path} has the columns {names}, but rows to write have {table.schema.names}.")
        try:
            return table.select(names).cast(self._schema)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as ex:
            raise DataError(f"{self.path}: rows to write are of other types: {str(ex).splitlines()[0]}") from None

    def _lengths(self, table: pa.Table) -> np.ndarray:
        lengths_R = np.zeros(table.num_rows, np.int64)
        for name in self._columns:
            lengths_R += pc.fill_null(pc.list_value_length(table.column(name)), 0).to_numpy().astype(np.int64)
        return lengths_R

    def _hold(self, table: pa.Table) -> None:
        if table.num_rows:
            self._held.append(table)

    def _flush(self) -> None:
        if not self._held:
            return
        rows = pa.concat_tables(self._held)
        self._open(rows).write_table(rows, row_group_size=rows.num_rows)
        self.num_rows += rows.num_rows
        self._held, self._num_held = [], 0

    def _open(self, first: pa.Table) -> pq.ParquetWriter:
        if self._writer is None:
            self._aside.parent.mkdir(parents=True, exist_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            named = [name for name in self._schema.names if name not in self._columns]
            self._writer = pq.ParquetWriter(
                self._aside,
                self._schema,
                compression="zstd",
                # Random bits repeat too rarely for a dictionary: looking for one would only cost time. Splitting their
                # bytes into streams would save a tenth of the disk, but Arrow before 17 cannot read halves so.
                use_dictionary=named,
                # Readers see then that a page was damaged, which in a vector nothing else would show.
                write_page_checksum=True,
                # Least and greatest components say nothing about a vector, and cost a third of the writing.
                write_statistics=named,
                write_batch_size=values_at_a_time(first.select(named)),
            )
        return self._writer


def values_at_a_time(others: pa.Table) -> int:
    """How many values are encoded before a page may end: many are faster, but long texts must not make huge pages.

    :param others: The file's first rows, without embeddings.
    """
    bytes_a_row = max(others.nbytes // max(others.num_rows, 1), 1)
    # A power of two, so that it does not follow the last byte of what rows were handed over in.
    values = 1 << (max(_PAGE_BYTES // bytes_a_row, 1).bit_length() - 1)
    return min(max(values, _FEWEST_VALUES), _MOST_VALUES)


def _width(kind: pa.DataType) -> int:
    """Components of a vector, 1 where the type leaves it open."""
    inner = kind.value_type
    return inner.list_size if pa.types.is_fixed_size_list(inner) else 1
