"""Reads the documents of a sample, and what is cheap to read of many more.

A sample comes from whole units (row groups, or parts of large ones) in an order drawn by seed, so that little is read
beside it. Bad documents are left out and counted; what cannot be read at all is noted and passed over.

Shapes: T concepts of a document, C their dimensions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.decode import Sentences
from lexalcm.data.discover import DataFile
from lexalcm.data.filters import columns_of, filters_on_rows, row_mask
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.order import Unit, units_of_file
from lexalcm.data.rows import Rows, read_unit
from lexalcm.data.sources import SourceConfig
from lexalcm.data.validate import BadRowCounter
from lexalcm.errors import DataError
from lexalcm.pipelines.report.columns import UNKNOWN, TellingColumns, telling_columns, with_sentences

_FEWEST_UNITS: Final = 16
"""Units that a sample comes from at least, if there are so many: neighbours in a file are alike."""

_ROWS_AT_A_TIME: Final = 8192


@dataclass(frozen=True)
class Part:
    """Rows of one file that are read together."""

    file: DataFile

    source: SourceConfig
    """As it is for this file: with the column of sentences that the file has."""

    columns: TellingColumns

    unit: Unit

    first: int
    """The number of its first row, counted over all files in order."""

    @property
    def num_rows(self) -> int:
        if self.unit.first_group == self.unit.last_group:
            return self.unit.stop - self.unit.start
        return sum(self.file.rows[self.unit.first_group : self.unit.last_group + 1])

    @property
    def first_in_file(self) -> int:
        return self.file.first_rows[self.unit.first_group] + self.unit.start


@dataclass(frozen=True)
class SampledDocument:
    """A good document of the sample."""

    id: str | None
    """What the file calls it."""

    place: str
    """``source:relative path:row``."""

    number: int
    """Counted over all rows in order."""

    lang: str

    concepts: np.ndarray
    """``[T, C]`` as stored, in memory shared with others."""

    _sentences: Sentences | None

    _chunk_row: int

    def sentences(self) -> list[str] | None:
        """Its text, ``None`` if there is none."""
        return None if self._sentences is None else self._sentences.of(self._chunk_row)

    def owned(self) -> SampledDocument:
        """The same with concepts in memory of its own, and without text."""
        return replace(self, concepts=self.concepts.copy(), _sentences=None)


@dataclass
class ReadingNotes:
    """What went wrong while a dataset was read."""

    counter: BadRowCounter

    unreadable: list[str]
    """What could not be read at all, one message each."""


def new_notes() -> ReadingNotes:
    """Notes that stop for no number of bad rows: a report shows what there is."""
    return ReadingNotes(BadRowCounter(skip=True, max_share=1.0), [])


def list_parts(dataset: ConceptParquetDataset, split: str | None) -> list[Part]:
    """All rows of a split in file order.

    :raises DataError: There is no such split.
    """
    parts: list[Part] = []
    for source in dataset.files(split):
        for file in source.files:
            columns = telling_columns(file, source.config)
            config = with_sentences(source.config, columns)
            for unit in units_of_file(file.rows, file.components, concept_dim=dataset.concept_dim):
                first = parts[-1].first + parts[-1].num_rows if parts else 0
                parts.append(Part(file, config, columns, unit, first))
    return parts


def choose_rows(parts: Sequence[Part], num_documents: int, seed: int) -> list[tuple[Part, np.ndarray]]:
    """Draws so many rows, and tells for each part that has some of them which, as a bool mask. Parts come in file
    order."""
    rng = np.random.default_rng([seed, 0])
    chosen: list[int] = []
    room = 0
    for index in rng.permutation(len(parts)).tolist():
        if room >= 2 * num_documents and len(chosen) >= _FEWEST_UNITS:
            break
        chosen.append(index)
        room += parts[index].num_rows
    chosen.sort()
    drawn = np.zeros(room, dtype=bool)
    drawn[rng.permutation(room)[:num_documents]] = True
    masks = np.split(drawn, np.cumsum([parts[i].num_rows for i in chosen])[:-1])
    return [(parts[i], mask) for i, mask in zip(chosen, masks) if mask.any()]


def read_documents(
    files: OpenFiles, part: Part, rows: np.ndarray, *, concept_dim: int, notes: ReadingNotes
) -> Iterator[list[SampledDocument]]:
    """Yields the good ones of a part's documents that the mask ``rows`` names, a chunk at a time."""
    try:
        ids, langs = _names(files, part)
        for chunk in read_unit(
            files, part.file, part.source, part.unit, concept_dim=concept_dim, counter=notes.counter
        ):
            yield _documents(part, chunk, rows, ids, langs)
    except (DataError, pa.ArrowException) as ex:
        note(notes, part, ex)


def note(notes: ReadingNotes, part: Part, error: Exception) -> None:
    """Notes once what cannot be read of a file; the message of our own errors names it."""
    text = str(error).splitlines()[0]
    text = text if isinstance(error, DataError) else f"{part.file.path}: {text}"
    if text not in notes.unreadable:
        notes.unreadable.append(text)


def _documents(
    part: Part, chunk: Rows, rows: np.ndarray, ids: list[str | None], langs: list[str]
) -> list[SampledDocument]:
    documents = []
    places = zip(*(x.tolist() for x in (chunk.starts, chunk.lengths, chunk.rows, chunk.chunk_rows)))
    for start, length, row, chunk_row in places:
        at = row - part.first_in_file
        if rows[at]:
            place = f"{part.source.name}:{part.file.relative}:{row}"
            concepts = chunk.values[start : start + length]
            number = part.first + at
            documents.append(SampledDocument(ids[at], place, number, langs[at], concepts, chunk.sentences, chunk_row))
    return documents


def _names(files: OpenFiles, part: Part) -> tuple[list[str | None], list[str]]:
    ids: list[str | None] = []
    langs: list[str] = []
    for table, _ in read_light(files, part, [part.columns.id, part.columns.lang], filtered=False):
        ids += texts_of(table, part, part.columns.id)
        langs += [lang or UNKNOWN for lang in texts_of(table, part, part.columns.lang)]
    return ids, langs


def read_light(
    files: OpenFiles, part: Part, columns: Sequence[str | None], *, filtered: bool = True
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yields these columns of a part's rows, those of partitions left out, and which rows pass the source's filters.

    :raises DataError: The file is damaged.
    """
    filters = filters_on_rows(part.source.filters, part.file.partitions) if filtered else []
    asked = [*(c for c in columns if c is not None), *sorted(c for f in filters for c in columns_of(f))]
    names = [c for c in dict.fromkeys(asked) if c not in part.file.partitions]
    unit = part.unit
    whole = unit.first_group != unit.last_group
    for start in range(0, part.num_rows, part.num_rows if whole else _ROWS_AT_A_TIME):
        stop = part.num_rows if whole else min(start + _ROWS_AT_A_TIME, part.num_rows)
        if not names:
            table = pa.table({"row": np.arange(start, stop)})
        elif whole:
            table = files.read_groups(part.file, range(unit.first_group, unit.last_group + 1), names)
        else:
            first, last = unit.start + start, unit.start + stop
            table = files.read_part(part.file, unit.first_group, names, first, last, step=_ROWS_AT_A_TIME)
        passed = np.ones(table.num_rows, dtype=bool)
        if filters:
            passed = row_mask(filters, table, partitions=part.file.partitions, file=part.file.path)
        yield table, passed


def texts_of(table: pa.Table, part: Part, column: str | None) -> list[str | None]:
    """A column's values as texts, or the value of a partition for every row; ``None`` where there is none."""
    if column is None:
        return [None] * table.num_rows
    if column in part.file.partitions:
        return [part.file.partitions[column]] * table.num_rows
    return [None if value is None else str(value) for value in table.column(column).to_pylist()]


def first_documents(parts: Sequence[Part], count: int, *, concept_dim: int) -> list[SampledDocument]:
    """The first good documents in file order."""
    files, notes = OpenFiles(), new_notes()
    found: list[SampledDocument] = []
    for part in parts:
        rows = np.ones(part.num_rows, dtype=bool)
        for documents in read_documents(files, part, rows, concept_dim=concept_dim, notes=notes):
            found += documents[: count - len(found)]
            if len(found) == count:
                return found
    return found


def part_of_row(parts: Sequence[Part], number: int) -> int:
    """The index of the part that holds a row, counted over all files."""
    return bisect_right(parts, number, key=lambda part: part.first) - 1
