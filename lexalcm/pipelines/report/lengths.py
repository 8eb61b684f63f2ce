"""The light pass: lengths of texts, languages and dates of as many documents as can be read at little cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from lexalcm.data.decode import decode_sentences
from lexalcm.data.open_files import OpenFiles
from lexalcm.errors import DataError
from lexalcm.pipelines.report.columns import UNKNOWN, months
from lexalcm.pipelines.report.sample import Part, ReadingNotes, note, read_light, texts_of
from lexalcm.pipelines.report.tally import Tally

MOST_ROWS: Final = 200_000
"""Rows whose texts and dates are read at most."""


@dataclass
class Lengths:
    """What texts and other light columns tell."""

    num_documents: int = 0

    sentences: Tally = field(default_factory=Tally)
    """Sentences a document."""

    characters: Tally = field(default_factory=Tally)
    """Characters a sentence."""

    document_characters: Tally = field(default_factory=Tally)
    """Characters a document."""

    langs: Counter[str] = field(default_factory=Counter)
    """Documents by language."""

    months: Counter[int] = field(default_factory=Counter)
    """Documents by month, counted from January of year 0."""

    date_column: str | None = None


def collect_lengths(parts: Sequence[Part], seed: int, notes: ReadingNotes, *, most: int = MOST_ROWS) -> Lengths:
    """Reads all rows, or those of parts drawn by ``seed`` where there are more than ``most``."""
    found = Lengths()
    files = OpenFiles()
    chosen = list(parts)
    if sum(part.num_rows for part in parts) > most:
        order = np.random.default_rng([seed, 2]).permutation(len(parts)).tolist()
        ends = np.cumsum([parts[i].num_rows for i in order])
        chosen = [parts[i] for i in sorted(order[: int(np.searchsorted(ends, most)) + 1])]
    total = sum(part.num_rows for part in chosen)
    with tqdm(total=total, desc="lengths", unit="doc", disable=None, leave=False) as bar:
        for part in chosen:
            try:
                _look(found, files, part)
            except (DataError, pa.ArrowException) as ex:
                note(notes, part, ex)
            bar.update(part.num_rows)
    return found


def _look(found: Lengths, files: OpenFiles, part: Part) -> None:
    told = part.columns
    whole_text = told.whole_text if told.sentences is None else None
    dates = [column for column in told.dates if found.date_column in (None, column)]
    for table, passed in read_light(files, part, [told.sentences, whole_text, told.lang, *dates]):
        found.num_documents += int(passed.sum())
        langs = np.asarray([lang or UNKNOWN for lang in texts_of(table, part, told.lang)], object)
        found.langs.update(langs[passed].tolist())
        dates = _count_dates(found, table, part, dates, passed)
        if told.sentences is not None:
            for chunk, keep in _chunks(table.column(told.sentences), passed):
                _count_sentences(found, chunk, keep)
        elif whole_text is not None:
            for chunk, keep in _chunks(table.column(whole_text), passed):
                found.document_characters.add(_characters(chunk)[keep & chunk.is_valid().to_numpy(False)])


def _count_dates(
    found: Lengths, table: pa.Table, part: Part, columns: Sequence[str], passed: np.ndarray
) -> Sequence[str]:
    """Counts by the first column most of whose values are dates, and returns those to look at from then on."""
    for column in columns:
        if column in part.file.partitions:
            values = pa.array(texts_of(table, part, column), pa.string())
        else:
            values = table.column(column).combine_chunks()
        when = months(values)[passed]
        known = when[when >= 0]
        if len(known) and (2 * len(known) > len(when) or found.date_column == column):
            found.date_column = column
            found.months.update(known.tolist())
            return [column]
    return columns


def _count_sentences(found: Lengths, chunk: pa.Array, keep: np.ndarray) -> None:
    texts = decode_sentences(chunk)
    keep = keep & ~texts.null_rows
    sizes = _characters(texts.values)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    totals = ends[texts.starts + texts.lengths] - ends[texts.starts]
    owned = np.repeat(keep, texts.lengths)
    found.sentences.add(texts.lengths[keep])
    found.characters.add(sizes[: len(owned)][owned])
    found.document_characters.add(totals[keep])


def _characters(texts: pa.Array) -> np.ndarray:
    """Characters of each text, int64; bytes that are no UTF-8 count somehow."""
    plain = texts.dictionary_decode() if pa.types.is_dictionary(texts.type) else texts
    if not pa.types.is_large_string(plain.type):
        plain = plain.cast(pa.large_binary()).view(pa.large_string())
    return pc.fill_null(pc.utf8_length(plain), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _chunks(column: pa.ChunkedArray, passed: np.ndarray) -> list[tuple[pa.Array, np.ndarray]]:
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    return list(zip(column.chunks, np.split(passed, ends[:-1]))) if len(ends) else []
