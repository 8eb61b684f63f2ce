"""Which columns of a file tell of its documents: sentences, language, date, name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexalcm.data.decode import check_text_type, is_text
from lexalcm.data.discover import DataFile
from lexalcm.data.sources import EMBEDDING_COLUMN, SourceConfig
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import DataError

LANG_COLUMNS: Final = ("lang", "language", "lang_code", "text_lang", "source_lang")
ID_COLUMNS: Final = ("id", "doc_id", "document_id", "page_id", "uuid", "url", "title")
WHOLE_TEXT_COLUMN: Final = "text"
UNKNOWN: Final = "(none)"
_EMBEDDING_SUFFIX: Final = EMBEDDING_COLUMN.removeprefix(TEXT_COLUMN)
_DATE_WORDS: Final = ("timestamp", "date", "time", "year", "created", "published", "modified")
_ISO_DATE: Final = r"^(\d{4})(?:-(\d{2}))?(?:[-T ].*|Z)?$"
_YEARS: Final = (1000, 2999)


@dataclass(frozen=True)
class TellingColumns:
    """Names of columns of one file (or partitions of its path), ``None`` where there is none of the kind."""

    sentences: str | None

    whole_text: str | None

    lang: str | None

    id: str | None

    dates: tuple[str, ...]
    """Those that may hold dates, the likeliest first; their values decide."""


def telling_columns(file: DataFile, source: SourceConfig) -> TellingColumns:
    """Finds them by name and type; what the source's configuration names comes first."""
    once = [name for name in file.schema.names if file.schema.names.count(name) == 1]
    kinds = {name: _plain(file.schema.field(name).type) for name in once}

    def first(names: Sequence[str | None], fits: Callable[[pa.DataType], bool]) -> str | None:
        wanted = [name for name in names if name is not None]
        return next((n for n in wanted if n in file.partitions or (n in kinds and fits(kinds[n]))), None)

    sentences = source.text_column
    if sentences is None and source.target_column is None:
        guess = _likely_sentences(str(source.embedding_column), once)
        sentences = guess if guess is not None and _holds_sentences(file, guess, once) else None
    return TellingColumns(
        sentences=sentences,
        whole_text=WHOLE_TEXT_COLUMN if is_text(kinds.get(WHOLE_TEXT_COLUMN, pa.null())) else None,
        lang=first(LANG_COLUMNS, is_text),
        id=first((source.id_column, *ID_COLUMNS), lambda kind: is_text(kind) or pa.types.is_integer(kind)),
        dates=_date_columns(file, kinds),
    )


def with_sentences(source: SourceConfig, columns: TellingColumns) -> SourceConfig:
    """The source, reading the sentences that the file has."""
    return replace(source, text_column=columns.sentences)


def months(values: pa.Array) -> np.ndarray:
    """Months since January of year 0, int64, -1 where there is no date: of timestamps, dates, ISO 8601 texts, and years
    given as integers."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return months(values.dictionary_decode())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        years, month = pc.year(values), pc.month(values)
        found = pc.add(pc.multiply(years, 12), pc.subtract(month, 1))
    elif pa.types.is_integer(kind):
        found = pc.multiply(pc.cast(values, pa.int64(), safe=False), 12)
        low, high = _YEARS
        inside = pc.and_(pc.greater_equal(found, low * 12), pc.less_equal(found, high * 12))
        found = pc.if_else(inside, found, -1)
    else:
        return np.asarray([_month_of_text(v) for v in values.to_pylist()], np.int64)
    return pc.fill_null(pc.cast(found, pa.int64()), -1).to_numpy(zero_copy_only=False)


def _month_of_text(value: object) -> int:
    match = re.match(_ISO_DATE, value) if isinstance(value, str) else None
    if match is None or not _YEARS[0] <= int(match[1]) <= _YEARS[1]:
        return -1
    month = int(match[2] or 1)
    return int(match[1]) * 12 + month - 1 if 1 <= month <= 12 else -1


def _date_columns(file: DataFile, kinds: dict[str, pa.DataType]) -> tuple[str, ...]:
    typed = [n for n, k in kinds.items() if pa.types.is_timestamp(k) or pa.types.is_date(k)]
    named = [
        name
        for name in [*file.partitions, *kinds]
        if any(word in re.split(r"[^a-z]+", name.lower()) for word in _DATE_WORDS)
        and (name in file.partitions or is_text(kinds[name]) or (pa.types.is_integer(kinds[name]) and "year" in name))
    ]
    return tuple(dict.fromkeys([*typed, *named]))


def _likely_sentences(embedding_column: str, names: Sequence[str]) -> str | None:
    """The column whose sentences the embeddings are: as Meta's are named, else the usual one, if no other embeddings
    are its own."""
    if embedding_column.endswith(_EMBEDDING_SUFFIX):
        return embedding_column.removesuffix(_EMBEDDING_SUFFIX)
    return None if EMBEDDING_COLUMN in names else TEXT_COLUMN


def _holds_sentences(file: DataFile, column: str, names: Sequence[str]) -> bool:
    if column not in names:
        return False
    try:
        check_text_type(file.schema.field(column).type, file=file.path, column=column)
    except DataError:
        return False
    return True


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
