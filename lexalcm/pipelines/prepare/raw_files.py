"""Which files an input has: formats, compression, ids of files, and what changed since they were listed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from lexalcm.data.discover import partitions_of, reason_of, why_not_there
from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_folders import Found, open_file_system, saved_dataset, walk
from lexalcm.text.checks import has_half_character

FORMATS: Final = {
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "csv": (".csv",),
    "tsv": (".tsv",),
    "txt": (".txt",),
    "parquet": (".parquet",),
    "arrow": (".arrow",),
}
"""Of documents, with the suffixes of their files."""

COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
_PACKED_INSIDE: Final = ("parquet", "arrow")
_STAMPS: Final = ("ETag", "etag", "blob_id", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class RawFile:
    """One file of the input, as plain values: it travels to workers on other machines."""

    root: str
    """The path or URL by which its file system is found."""

    path: str
    """As the file system knows it."""

    name: str
    """What it is called in messages: its path below the root, unless another file is called so too."""

    format: str

    compression: str | None

    size: int
    """Bytes on disk."""

    stamp: str
    """Of its last change, in whatever form the file system has one."""

    id_prefix: str
    """What made ids of its documents begin with; no other file has it."""

    columns: dict[str, str | None] = field(default_factory=dict)
    """Columns that its path tells: hive partitions, and the split of a saved dataset."""

    @cached_property
    def file_system(self) -> Any:
        return open_file_system(self.root)[0]

    @property
    def is_local(self) -> bool:
        return isinstance(self.file_system, LocalFileSystem)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "file_system"}

    def check_unchanged(self) -> None:
        """:raises DataError: It is gone, or of another size than when it was listed."""
        try:
            size = self.file_system.size(self.path)
        except OSError as ex:
            raise DataError(f"{self.path} was there when the input was looked through, and is not now: {ex}") from None
        if size != self.size:
            raise DataError(
                f"{self.path} has {size:,} bytes, but had {self.size:,} when the input was looked through.\n"
                f"Put it back as it was, or prepare into a new folder."
            )


def find_files(paths: Sequence[str], format: str | None = None) -> tuple[RawFile, ...]:
    """Lists the files of all ``paths``, in order; those of a folder are sorted by their path below it.

    A folder's files are those of a known suffix, of one format all of them. With ``format`` they are those of its
    suffixes, or if there is none, all of them; a file given by itself is of that format whatever it is called. Names
    that begin with ``.`` or ``_`` are passed over.

    :param paths: Files, folders, patterns with ``*``, datasets saved by Hugging Face's ``save_to_disk``; or their URLs.
    :raises DataError: Something is not there, holds nothing, is of an unknown format, or is given twice.
    """
    files = [file for path in paths for file in _files_of(path, format)]
    seen: set[tuple[str, str]] = set()
    for file in files:
        key = (type(file.file_system).__name__, os.path.realpath(file.path) if file.is_local else file.path)
        if key in seen:
            raise DataError(f"{file.path} is given twice: its documents would be there twice. Leave one out.")
        seen.add(key)
    return tuple(_with_names(files))


def changes_between(before: Iterable[RawFile], now: Iterable[RawFile]) -> list[str]:
    """One line for each file that is new, gone, changed, or in another place of the order; empty if nothing changed."""
    old, new = ({file.path: file for file in files} for files in (before, now))
    changes = [f"{file.path} is gone" for path, file in old.items() if path not in new]
    for path, file in new.items():
        known = old.get(path)
        if known is None:
            changes.append(f"{path} is new")
        elif known.size != file.size:
            changes.append(f"{path} has {file.size:,} bytes, and had {known.size:,}")
        elif known.stamp != file.stamp:
            changes.append(f"{path} was written again since")
        elif (known.format, known.columns, known.id_prefix) != (file.format, file.columns, file.id_prefix):
            changes.append(f"{path} is read in another way")
    return changes or ([] if list(old) == list(new) else ["the files are the same, in another order"])


def _files_of(root: str, format: str | None) -> list[RawFile]:
    file_system, path = open_file_system(root)
    try:
        if file_system.isfile(path):
            found = Found(path, PurePosixPath(path).name, _partitions_above(path))
            return [_raw_file(found, root, file_system, format or _format_of(path))]
        if not file_system.exists(path):
            names = sorted(file_system.glob(path)) if any(c in path for c in "*?[") else []
            if not names:
                raise DataError(f"The input {root} {why_not_there(file_system, path)}.")
            below = os.path.commonpath([str(PurePosixPath(p).parent) for p in names]).rstrip("/") + "/"
            listed = [Found(p, p.removeprefix(below), _partitions_above(p)) for p in names if file_system.isfile(p)]
        elif saved := saved_dataset(file_system, path):
            return [_raw_file(found, root, file_system, "arrow") for found in saved]
        else:
            listed = sorted(walk(file_system, path), key=lambda found: found.name)
        return [_raw_file(found, root, file_system, kind) for found, kind in _chosen(root, listed, format)]
    except DataError:
        raise
    except Exception as ex:  # the library behind a URL raises what it likes, for want of credentials say
        raise DataError(f"The input {root} cannot be listed: {reason_of(ex)}") from ex


def _partitions_above(path: str) -> dict[str, str | None]:
    """Those of the folders right above a file."""
    folders = takewhile(lambda name: "=" in name, reversed(PurePosixPath(path).parts[:-1]))
    return partitions_of(list(folders)[::-1])


def _chosen(root: str, listed: list[Found], format: str | None) -> list[tuple[Found, str]]:
    kinds = [(found, _known_format(found.name)) for found in listed]
    if format is not None:
        chosen = [(found, format) for found, kind in kinds if kind == format]
        chosen = chosen or [(found, format) for found in listed]
    else:
        chosen = [(found, kind) for found, kind in kinds if kind is not None]
    if not chosen:
        found = f", but {len(listed)} of others, {listed[0].name} the first" if listed else ""
        raise DataError(f"The input {root} holds no file of a known format{found}.\nKnown: {_suffixes()}.")
    counts = Counter(kind for _, kind in chosen)
    if len(counts) > 1:
        said = ", ".join(f"{number} of {kind}" for kind, number in counts.items())
        raise DataError(f"The input {root} holds files of several formats: {said}.\nSay which to read with --format.")
    return chosen


def _raw_file(found: Found, root: str, file_system: Any, format: str) -> RawFile:
    compression = COMPRESSIONS.get(PurePosixPath(found.path).suffix.lower())
    if compression is not None and format in _PACKED_INSIDE:
        raise DataError(f"{found.path} is {format} inside {compression}, which cannot be read in parts: unpack it.")
    if has_half_character(found.path):
        raise DataError(f"{found.path.encode(errors='replace').decode()}: the file's name is not UTF-8. Rename it.")
    info = file_system.info(found.path)
    stamp = next((str(info[name]) for name in _STAMPS if info.get(name) is not None), "")
    return RawFile(
        root=os.path.abspath(found.path) if isinstance(file_system, LocalFileSystem) else root,
        path=found.path,
        name=found.name,
        format=format,
        compression=compression,
        size=info["size"],
        stamp=stamp,
        id_prefix="",
        columns=found.columns,
    )


def _known_format(name: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return next((format for format, known in FORMATS.items() if last in known), None)


def _format_of(path: str) -> str:
    format = _known_format(path)
    if format is None:
        raise DataError(
            f"{path} has no suffix that tells its format.\nKnown: {_suffixes()}. Say what it is with --format."
        )
    return format


def _suffixes() -> str:
    known = [suffix for suffixes in FORMATS.values() for suffix in suffixes]
    return f"{', '.join(known)}, alone or with {', '.join(COMPRESSIONS)}"


def _with_names(files: list[RawFile]) -> Iterable[RawFile]:
    """Names and id prefixes: the shortest form in which no two files are the same."""
    names = _shortest(files, lambda f: f.name, lambda f: f.path)
    if all(f.format == "txt" for f in files):
        ids = _shortest(files, lambda f: _stem(f.name), lambda f: f.name, lambda f: f.path)
    else:
        # A text file's id has no number behind it: its suffix tells it from those that have.
        short = _shortest(files, lambda f: f.name if f.format == "txt" else PurePosixPath(_stem(f.name)).name)
        longer = _shortest(files, lambda f: f.name if f.format == "txt" else _stem(f.name), lambda f: f.name)
        ids = next((x for x in (short, longer) if len(set(x)) == len(x)), [f.path for f in files])
    return [replace(f, name=name, id_prefix=id_) for f, name, id_ in zip(files, names, ids)]


def _shortest(files: list[RawFile], *forms: Callable[[RawFile], str]) -> list[str]:
    for form in forms:
        labels = [form(file) for file in files]
        if len(set(labels)) == len(labels):
            break
    return labels


def _stem(name: str) -> str:
    """A path without its suffixes of compression and format."""
    path = PurePosixPath(name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return str(path.with_suffix("") if _known_format(path.name) else path)
