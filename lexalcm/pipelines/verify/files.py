"""The files of a source whose footers can be read, and what is wrong with the others."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from lexalcm.data.discover import DataFile, DataWarning, FoundFile, find_files, read_footer, same_split
from lexalcm.data.filters import passes_partitions
from lexalcm.data.sources import SourceConfig
from lexalcm.errors import DataError
from lexalcm.pipelines.verify.problems import Problem

_FOOTER_THREADS: Final = 8
_MANY_GROUPS: Final = 1_000
_FEW_ROWS: Final = 100


@dataclass(frozen=True)
class ReadableFiles:
    """What a source holds."""

    files: list[DataFile]
    """Those of the split asked for, in order."""

    splits: set[str]
    """All that paths name."""

    num_found: int
    """Files of the split, those that cannot be read among them."""

    problems: list[Problem]


def readable_files(source: SourceConfig, split: str | None) -> ReadableFiles:
    """
    :param split: ``None`` for all.
    :raises DataError: Nothing is at the source's path.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        found = find_files(source.path)
    problems = [Problem(kind="link", source=source.name, reason=str(warning.message)) for warning in caught]
    if not found:
        reason = "no name below it ends in .parquet"
        problems.append(Problem(kind="no_files", source=source.path, reason=reason))
    chosen = [f for f in found if _is_chosen(f, source, split)]
    with warnings.catch_warnings(), ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        warnings.simplefilter("ignore", DataWarning)
        read = list(pool.map(lambda f: _read(f, str(source.embedding_column)), chosen))
    files = []
    for place, file in zip(chosen, read):
        if isinstance(file, DataError):
            reason = without_path(str(file), place.path)
            problems.append(Problem(kind="unreadable_file", source=source.name, file=place.relative, reason=reason))
            continue
        files.append(file)
        if len(file.rows) >= _MANY_GROUPS and sum(file.rows) < _FEW_ROWS * len(file.rows):
            reason = f"{len(file.rows):,} row groups of about {sum(file.rows) // len(file.rows)} rows: slow to read"
            problems.append(Problem(kind="small_row_groups", source=source.name, file=file.relative, reason=reason))
    splits = {f.split for f in found if f.split is not None}
    return ReadableFiles(files, splits, len(chosen), problems)


def without_path(text: str, path: str) -> str:
    """An error's text in one line, without the file it begins with: problems have a place of their own."""
    lines = [line.strip().rstrip(".") for line in text.removeprefix(path).lstrip(": ").splitlines()]
    return ". ".join(lines)


def _is_chosen(found: FoundFile, source: SourceConfig, split: str | None) -> bool:
    asked = [s for s in (source.split if source.split is not None else split, source.only_split) if s is not None]
    return all(same_split(s, found.split) for s in asked) and passes_partitions(source.filters, found.partitions)


def _read(found: FoundFile, embedding_column: str) -> DataFile | DataError:
    try:
        return read_footer(found, embedding_column)
    except DataError as error:
        return error
