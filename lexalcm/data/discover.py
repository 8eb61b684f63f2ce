"""Finds the parquet files of a source, their splits and partitions, and reads their footers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from lexalcm.data.footer import (
    components_by_group,
    contradiction_in,
    footer_of,
    values_by_row_group,
    values_of_column,
)
from lexalcm.data.sources import SourceConfig
from lexalcm.errors import DataError

_NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"
_FOLDER_SPLITS: Final = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_FOOTER_THREADS: Final = 8
_MANY_GROUPS: Final = 1_000
_FEW_ROWS: Final = 100
_MOST_CHUNKS: Final = 4_096
"""Of columns in row groups whose values are counted; in a file with more, the first row groups tell of the others."""

_MOST_ROWS_A_BYTE: Final = 4_096

# What pyarrow raises on damaged files; a size field gone wrong may ask for more memory than there is.
ARROW_ERRORS: Final = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, RuntimeError, EOFError)


class DataWarning(UserWarning):
    """Data that can be used, but that somebody should look at."""


@dataclass(frozen=True)
class FoundFile:
    """A file whose name ends in ``.parquet``."""

    path: str
    """As the file system knows it."""

    relative: str
    """Below the source's root, with forward slashes: what files are sorted by and called in messages."""

    partitions: dict[str, str | None]
    """Hive partitions of the path; values are text, never numbers."""

    split: str | None

    file_system: Any
    """The fsspec file system it lies on."""


@dataclass(frozen=True)
class DataFile(FoundFile):
    """One parquet file, its footer read."""

    schema: pa.Schema

    size: int
    """Bytes."""

    rows: tuple[int, ...]
    """Rows of each row group."""

    first_rows: tuple[int, ...]
    """The row, counted from the start of the file, that each row group begins with."""

    components: tuple[int, ...]
    """About how many components the vectors of each row group have, text counted in; 0 without the embedding column."""

    values: tuple[int | None, ...]
    """What the footer counts in the embedding column of each row group: components, and one for each list that is null
    or empty. ``None`` where it was not looked at, or does not say."""

    embedding_column: str
    """Whose ``components`` and ``values`` these are."""


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source, or those of them that belong to a split."""

    config: SourceConfig

    files: list[DataFile]


def discover(root: str, embedding_column: str) -> list[DataFile]:
    """Lists the parquet files at ``root``, sorted by relative path, and reads their footers.

    :raises DataError: Nothing is there, or a file cannot be read.
    """
    found = find_files(root)
    if not found:
        raise DataError(f"The dataset {root} holds no parquet file: no name below it ends in .parquet.")
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return list(pool.map(lambda file: read_footer(file, embedding_column), found))


def find_files(root: str) -> list[FoundFile]:
    """Lists the parquet files at ``root``, sorted by relative path; there may be none.

    Names that begin with ``_`` or ``.`` are markers and unfinished files, and are passed over with all that is below
    them.

    :raises DataError: The root does not exist, or cannot be listed.
    """
    file_system, path = _open_file_system(root)
    local = isinstance(file_system, LocalFileSystem)
    try:
        if not file_system.exists(path):
            raise DataError(f"The dataset {root} {why_not_there(file_system, path)}.")
        parts = PurePosixPath(path.rstrip("/")).parts
        if file_system.isfile(path):
            names, parts = [(path, parts[-1])], parts[:-1]
        else:
            walk = _walk_local(path) if local else _walk_remote(file_system, path)
            names = sorted(walk, key=lambda item: item[1])
    except DataError:
        raise
    except Exception as ex:  # the library behind a URL raises what it likes, for want of credentials say
        raise DataError(f"The dataset {root} cannot be listed: {reason_of(ex)}") from ex
    for _, relative in names:
        if not _is_text(relative):
            raise DataError(f"The dataset {root} has a file whose name is not UTF-8: {relative!r}.\nRename it.")
    # A path given may itself lead to a split or a partition: DIR/split=train, DIR/Train.
    return [_found(file_system, name, relative, parts[-1:]) for name, relative in names]


def why_not_there(file_system: Any, path: str) -> str:
    """What to say of a path that a file system does not find: fsspec says the same of a server that it cannot reach."""
    if isinstance(file_system, LocalFileSystem):
        return f"does not exist (looked at {os.path.abspath(path)})"
    try:
        file_system.info(path)
    except FileNotFoundError as ex:
        cause = ex.__cause__
        if cause is not None and getattr(cause, "status", None) is None:
            return f"cannot be reached: {reason_of(cause)}"
    except Exception as ex:  # whatever it is, it is why
        return f"cannot be reached: {reason_of(ex)}"
    return "does not exist"


def _found(file_system: Any, path: str, relative: str, above: Sequence[str]) -> FoundFile:
    folders = [*above, *relative.split("/")[:-1]]
    partitions = partitions_of(folders)
    split = partitions["split"] if "split" in partitions else _folder_split(folders)
    return FoundFile(path, relative, partitions, split, file_system)


def _open_file_system(root: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(root)
    except (ImportError, ValueError, OSError) as ex:
        raise DataError(f"The dataset {root} cannot be opened: {reason_of(ex)}") from None


def is_hidden(name: str) -> bool:
    """Tells whether a file or folder of that name is a marker, or unfinished."""
    # Hive writes partitions of a column that begins with an underscore as _column=value.
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _walk_local(root: str) -> Iterator[tuple[str, str]]:
    seen = {os.path.realpath(root)}
    pending = [root]
    while pending:
        folder = pending.pop()
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if is_hidden(entry.name):
                continue
            is_folder = entry.is_dir()
            if not is_folder and not _is_parquet(entry.name):
                continue
            real = os.path.realpath(entry.path)
            if real in seen:
                what = "leads back to a folder" if is_folder else "is a second name of a file"
                warnings.warn(
                    f"{entry.path} {what} that is read already; it is passed over.", DataWarning, stacklevel=2
                )
                continue
            seen.add(real)
            if is_folder:
                pending.append(entry.path)
            else:
                yield entry.path, os.path.relpath(entry.path, root).replace(os.sep, "/")


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _is_text(name: str) -> bool:
    """Whether a name can be written down: Python stands odd bytes of a path for what no text holds."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _walk_remote(file_system: Any, root: str) -> Iterator[tuple[str, str]]:
    base = root.rstrip("/") + "/"
    for path in file_system.find(root):
        relative = path[len(base) :] if path.startswith(base) else path.lstrip("/")
        if _is_parquet(relative) and not any(is_hidden(part) for part in relative.split("/")):
            yield path, relative


def partitions_of(parts: Sequence[str]) -> dict[str, str | None]:
    """The hive partitions that names of folders tell: values are text, ``None`` that of the null partition."""
    pairs = (part.split("=", 1) for part in parts if "=" in part)
    return {unquote(k): None if v == _NULL_PARTITION else unquote(v) for k, v in pairs}


def read_footer(found: FoundFile, embedding_column: str) -> DataFile:
    """:raises DataError: The file is damaged or encrypted."""
    file_system, path = found.file_system, found.path
    try:
        size = file_system.size(path)
        if size == 0:
            raise DataError(f"{path} is empty (0 bytes): its writing was cut short. Remove it, or write it again.")
        with file_system.open(path, "rb") as handle:
            metadata = pq.read_metadata(handle)
            footer = footer_of(handle, size)
        schema = metadata.schema.to_arrow_schema()
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        rows = tuple(g.num_rows for g in groups)
        counts = values_by_row_group(footer, most=max(1, _MOST_CHUNKS // max(len(metadata.schema), 1)))
        values = values_of_column(metadata.schema, embedding_column, counts, len(groups))
        components = components_by_group(schema, embedding_column, groups, values, size=size)
    except ARROW_ERRORS as ex:
        reason = reason_of(ex)
        fix = "It is encrypted: write it unencrypted" if "crypt" in reason.lower() else "Remove it, or write it again"
        raise DataError(f"{path} is not a complete parquet file: {reason}\n{fix}.") from None
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise DataError(f"{path}: its footer contradicts itself: {metadata.num_rows} rows, by row group {sum(rows)}.")
    if sum(rows) > _MOST_ROWS_A_BYTE * size:
        raise DataError(f"{path}: its footer cannot be true: {sum(rows):,} rows in {size:,} bytes.")
    contradiction = contradiction_in(metadata.schema, rows, counts)
    if contradiction is not None:
        # Rows would be taken for others.
        raise DataError(f"{path}: its footer contradicts itself: {contradiction}.")
    if len(rows) >= _MANY_GROUPS and sum(rows) < _FEW_ROWS * len(rows):
        warnings.warn(
            f"{path} has {len(rows):,} row groups of about {sum(rows) // len(rows)} rows, which makes reading slow. "
            f"Write it again with larger ones.",
            DataWarning,
            stacklevel=2,
        )
    return DataFile(
        path=path,
        relative=found.relative,
        partitions=found.partitions,
        split=found.split,
        file_system=file_system,
        schema=schema,
        size=size,
        rows=rows,
        first_rows=tuple(accumulate(rows, initial=0))[:-1],
        components=components,
        values=values,
        embedding_column=embedding_column,
    )


def reason_of(error: BaseException | str) -> str:
    """The start of an error's text, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _folder_split(folders: Sequence[str]) -> str | None:
    """The innermost folder called like a split."""
    return next((_FOLDER_SPLITS[f.lower()] for f in reversed(folders) if f.lower() in _FOLDER_SPLITS), None)


def same_split(asked: str, found: str | None) -> bool:
    """Tells whether a file's split is the one asked for; ``val`` and ``valid`` are ``validation``."""
    if found is None:
        return False
    return asked == found or _FOLDER_SPLITS.get(asked.lower(), asked) == _FOLDER_SPLITS.get(found.lower(), found)
