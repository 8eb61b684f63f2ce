"""Contiguous ranges of an input's documents, which workers read one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import pyarrow as pa
from stopes.utils.sharding.abstract_shards import BatchFormat, BatchType, Shard, arrow_table_to_batch

from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_arrow import open_rows
from lexalcm.pipelines.prepare.raw_documents import is_rows, read_documents
from lexalcm.pipelines.prepare.raw_files import RawFile
from lexalcm.pipelines.prepare.raw_schema import ROW_COLUMN
from lexalcm.pipelines.prepare.raw_streams import Mark, open_stream
from lexalcm.pipelines.prepare.raw_tables import TableMaker

_DOCUMENTS_AT_A_TIME: Final = 256


@dataclass(frozen=True)
class Piece:
    """A range of the documents of one file."""

    file: RawFile

    first: int
    """Number of the first document in the file, from 0."""

    count: int

    mark: Mark | None
    """Of a file of text: a document at or before the first, to begin reading at; ``None``: the start."""


@dataclass(kw_only=True)
class RawShard(Shard):
    """Documents as tables in the input's schema, with their number in the input and their place for messages."""

    filter: None = None
    """stopes' filters of rows are not for raw documents."""

    index: int

    first_document: int
    """Its number in the whole input, from 0."""

    num_documents: int

    num_bytes: int
    """Unpacked, about."""

    pieces: tuple[Piece, ...] = field(repr=False)

    schema: pa.Schema = field(repr=False)

    text_columns: tuple[str, ...]

    id_column: str | None
    """As the input calls it; ``None``: ids are made."""

    def __post_init__(self) -> None:
        if self.filter is not None:
            raise ValueError("A shard of raw documents takes no filter.")

    def __exit__(self, *exception: object) -> None:
        """Nothing is open between calls."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.to_batches(_DOCUMENTS_AT_A_TIME, batch_format=BatchFormat.ARROW):
            yield from batch.to_pylist()

    def to_batches(
        self,
        batch_size: int | None,
        columns: list[str] | None = None,
        batch_format: BatchFormat = BatchFormat.PANDAS,
    ) -> Iterator[BatchType]:
        """Yields the documents in order, ``batch_size`` at a time whatever the files, at last fewer.

        To the schema's columns come ``__row``, int64, and ``__place``, text.

        :param batch_size: ``None``: all at once.
        :raises DataError: A file is damaged, or is not what it was when the input was looked through.
        """
        size = self.num_documents if batch_size is None else batch_size
        row = self.first_document
        for table in _batches_of(self._tables(size), size):
            numbers = pa.array(range(row, row + table.num_rows), pa.int64())
            row += table.num_rows
            table = table.add_column(table.num_columns - 1, ROW_COLUMN, numbers)
            yield arrow_table_to_batch(table if columns is None else table.select(columns), batch_format)

    def _tables(self, batch_size: int) -> Iterator[pa.Table]:
        maker = TableMaker(self.schema, self.id_column)
        for piece in self.pieces:
            piece.file.check_unchanged()
            found = 0
            for table in (_rows if is_rows(piece.file) else self._documents)(piece, maker, batch_size):
                found += table.num_rows
                yield table
            if found != piece.count:
                raise DataError(
                    f"{piece.file.path} has {piece.first + found:,} documents, but had at least "
                    f"{piece.first + piece.count:,} when the input was looked through.\n"
                    f"Put it back as it was, or prepare into a new folder."
                )

    def _documents(self, piece: Piece, maker: TableMaker, batch_size: int) -> Iterator[pa.Table]:
        with open_stream(piece.file) as stream:
            documents = read_documents(stream, piece.mark, self.text_columns[0])
            skip = piece.first - (piece.mark.row if piece.mark else 0)
            wanted = islice(documents, skip, skip + piece.count)
            while some := list(islice(wanted, min(batch_size, _DOCUMENTS_AT_A_TIME))):
                yield maker.from_documents(piece.file, some)


def _rows(piece: Piece, maker: TableMaker, batch_size: int) -> Iterator[pa.Table]:
    with open_rows(piece.file) as rows:
        there = [c for c in map(maker.source_of, maker.names) if c in rows.schema.names and c not in piece.file.columns]
        first = piece.first
        with closing(rows.batches(first, piece.count, there, min(batch_size, _DOCUMENTS_AT_A_TIME))) as tables:
            for table in tables:
                yield maker.from_rows(piece.file, table, first)
                first += table.num_rows


def _batches_of(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    num_held = 0
    for table in tables:
        while num_held + table.num_rows >= size:
            head = table.slice(0, size - num_held)
            yield pa.concat_tables([*held, head])
            table, held, num_held = table.slice(head.num_rows), [], 0
        if table.num_rows:
            held.append(table)
            num_held += table.num_rows
    if held:
        yield pa.concat_tables(held)
