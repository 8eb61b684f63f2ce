"""Finds the parquet files of a source, their splits and partitions, and reads their footers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from lexalcm.data.sources import SourceConfig
from lexalcm.errors import DataError

_NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"
_FOLDER_SPLITS: Final = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_FOOTER_THREADS: Final = 8


class DataWarning(UserWarning):
    """Data that can be used, but that somebody should look at."""


@dataclass(frozen=True)
class DataFile:
    """One parquet file, its footer read."""

    path: str
    """As the file system knows it."""

    relative: str
    """Below the source's root, with forward slashes: what files are sorted by and called in messages."""

    partitions: dict[str, str | None]
    """Hive partitions of the path; values are text, never numbers."""

    split: str | None

    file_system: Any
    """The fsspec file system it lies on."""

    schema: pa.Schema

    rows: tuple[int, ...]
    """Rows of each row group."""

    components: tuple[int, ...]
    """Components of all vectors of each row group, as the footer tells; 0 where the embedding column is missing."""

    def open(self) -> pq.ParquetFile:
        """Opens the file for reading row groups."""
        if isinstance(self.file_system, LocalFileSystem):
            return pq.ParquetFile(self.path, memory_map=True)
        return pq.ParquetFile(self.file_system.open(self.path, "rb"))


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source, or those of them that belong to a split."""

    config: SourceConfig

    files: list[DataFile]


def discover(root: str, embedding_column: str) -> list[DataFile]:
    """Lists the parquet files at ``root``, sorted by relative path.

    Names that begin with ``_`` or ``.`` are markers and unfinished files, and are passed over with all that is below them.

    :raises DataError: Nothing is there, or a file cannot be read.
    """
    try:
        file_system, path = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as ex:
        raise DataError(f"{root} cannot be opened: {ex}") from None
    local = isinstance(file_system, LocalFileSystem)
    if not file_system.exists(path):
        resolved = f" (looked at {os.path.abspath(path)})" if local else ""
        raise DataError(f"The dataset {root} does not exist{resolved}.")
    if file_system.isfile(path):
        found = [(path, path.rsplit("/", 1)[-1])]
    else:
        found = sorted(_walk_local(path) if local else _walk_remote(file_system, path), key=lambda item: item[1])
    if not found:
        raise DataError(f"The dataset {root} holds no parquet file: no name below it ends in .parquet.")
    above = _partitions(PurePosixPath(path.rstrip("/")).parts[-1:])
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return list(pool.map(lambda item: _read_footer(file_system, *item, above, embedding_column), found))


def _walk_local(root: str) -> Iterator[tuple[str, str]]:
    seen = {os.path.realpath(root)}
    pending = [root]
    while pending:
        folder = pending.pop()
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if entry.name.startswith(("_", ".")):
                continue
            real = os.path.realpath(entry.path)
            if entry.is_dir():
                if real in seen:
                    warnings.warn(f"{entry.path} leads back to a folder that is read already; it is passed over.", DataWarning, 2)
                    continue
                seen.add(real)
                pending.append(entry.path)
            elif entry.name.endswith(".parquet"):
                if real in seen:
                    warnings.warn(f"{entry.path} is a second name of a file that is read already.", DataWarning, 2)
                    continue
                seen.add(real)
                yield entry.path, os.path.relpath(entry.path, root).replace(os.sep, "/")


def _walk_remote(file_system: Any, root: str) -> Iterator[tuple[str, str]]:
    base = root.rstrip("/") + "/"
    for path in file_system.find(root):
        relative = path[len(base) :] if path.startswith(base) else path
        hidden = any(part.startswith(("_", ".")) for part in relative.split("/"))
        if relative.endswith(".parquet") and not hidden:
            yield path, relative


def _partitions(parts: tuple[str, ...]) -> dict[str, str | None]:
    pairs = (part.split("=", 1) for part in parts if "=" in part)
    return {unquote(k): None if v == _NULL_PARTITION else unquote(v) for k, v in pairs}


def _read_footer(
    file_system: Any, path: str, relative: str, above: dict[str, str | None], embedding_column: str
) -> DataFile:
    parts = relative.split("/")[:-1]
    partitions = {**above, **_partitions(tuple(parts))}
    try:
        if file_system.size(path) == 0:
            raise DataError(f"{path} is empty (0 bytes): its writing was cut short. Remove it, or write it again.")
        with file_system.open(path, "rb") as handle:
            metadata = pq.read_metadata(handle)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as ex:
        reason = str(ex).splitlines()[0] if str(ex) else type(ex).__name__
        raise DataError(
            f"{path} ({file_system.size(path):,} bytes) is not a complete parquet file: {reason}\n"
            f"Remove it, or write it again."
        ) from None
    leaf = next(
        (i for i in range(len(metadata.schema)) if metadata.schema.column(i).path.split(".")[0] == embedding_column), None
    )
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return DataFile(
        path=path,
        relative=relative,
        partitions=partitions,
        split=partitions["split"] if "split" in partitions else _folder_split(parts),
        file_system=file_system,
        schema=schema,
        rows=tuple(g.num_rows for g in groups),
        components=tuple(0 if leaf is None else g.column(leaf).num_values for g in groups),
    )


def _folder_split(parts: list[str]) -> str | None:
    return next((_FOLDER_SPLITS[p.lower()] for p in parts if p.lower() in _FOLDER_SPLITS), None)


def same_split(asked: str, found: str | None) -> bool:
    """Tells whether a file's split is the one asked for; ``val`` and ``valid`` are ``validation``."""
    if found is None:
        return False
    return asked == found or _FOLDER_SPLITS.get(asked.lower(), asked) == _FOLDER_SPLITS.get(found.lower(), found)
