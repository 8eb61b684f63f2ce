"""What lies in the folders of an input: files, hive partitions, datasets saved by Hugging Face."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lexalcm.data.discover import DataWarning, is_hidden, partitions_of, reason_of
from lexalcm.errors import DataError

_SAVED_SPLITS: Final = "dataset_dict.json"
_SAVED_STATE: Final = "state.json"


@dataclass(frozen=True)
class Found:
    """A file below a root."""

    path: str

    name: str
    """Below the root, with forward slashes."""

    columns: dict[str, str | None] = field(default_factory=dict)
    """What its folders tell, as text."""


def open_file_system(root: str) -> tuple[Any, str]:
    """Returns the fsspec file system of a path or URL, and the path on it.

    :raises DataError: There is no such file system, or it needs a package that is not there.
    """
    try:
        return fsspec.core.url_to_fs(root)
    except (ImportError, ValueError, OSError) as ex:
        raise DataError(f"The input {root} cannot be opened: {reason_of(ex)}") from None


def walk(file_system: Any, root: str) -> Iterator[Found]:
    """Yields the files below ``root`` in no order; names that begin with ``.`` or ``_`` are passed over."""
    root = root.rstrip("/")
    # A path given may itself lead to a partition: DIR/split=train.
    above = [PurePosixPath(root).name]
    for path in _walk_local(root) if isinstance(file_system, LocalFileSystem) else file_system.find(root):
        name = path.removeprefix(root).lstrip("/")
        folders = name.split("/")
        if not any(is_hidden(part) for part in folders):
            yield Found(path, name, partitions_of([*above, *folders[:-1]]))


def _walk_local(root: str) -> Iterator[str]:
    """Follows links, but into no folder twice."""
    seen = {os.path.realpath(root)}
    pending = [root]
    while pending:
        for entry in os.scandir(pending.pop()):
            if is_hidden(entry.name):
                continue
            if not entry.is_dir():
                yield entry.path.replace(os.sep, "/")
            elif (real := os.path.realpath(entry.path)) not in seen:
                seen.add(real)
                pending.append(entry.path)
            else:
                message = f"{entry.path} leads back to a folder that is read already; it is passed over."
                warnings.warn(message, DataWarning, stacklevel=2)


def saved_dataset(file_system: Any, root: str) -> list[Found]:
    """Lists the files of a dataset that ``save_to_disk`` wrote; the folder of a split tells the column ``split``.

    :returns: Empty if it is another kind of folder.
    :raises DataError: Its lists of files are damaged, or name what is not there.
    """
    root = root.rstrip("/")
    if file_system.exists(f"{root}/{_SAVED_SPLITS}"):
        splits = _read(file_system, f"{root}/{_SAVED_SPLITS}", "splits")
        return [
            Found(file.path, f"{split}/{file.name}", {"split": split})
            for split in splits
            for file in _saved_split(file_system, f"{root}/{split}")
        ]
    return _saved_split(file_system, root) if file_system.exists(f"{root}/{_SAVED_STATE}") else []


def _saved_split(file_system: Any, folder: str) -> list[Found]:
    listed = _read(file_system, f"{folder}/{_SAVED_STATE}", "_data_files")
    found = [Found(f"{folder}/{entry['filename']}", entry["filename"]) for entry in listed if isinstance(entry, dict)]
    for file in found:
        if not file_system.isfile(file.path):
            raise DataError(f"{file.path} is not there, though {_SAVED_STATE} lists it: copy the whole folder.")
    return found


def _read(file_system: Any, path: str, key: str) -> list[Any]:
    try:
        content = json.loads(file_system.cat_file(path))
        entries = content[key]
        if not isinstance(entries, list):
            raise TypeError(f"`{key}` is no list")
        if content.get("_indices_data_files"):
            raise ValueError("it keeps an order of rows apart, which is not read; call flatten_indices() before saving")
    except (OSError, ValueError, KeyError, TypeError) as ex:
        raise DataError(f"{path} is not what save_to_disk writes: {reason_of(ex)}.") from None
    return entries
