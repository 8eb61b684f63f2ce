"""Names of output files: no two of a folder are the same, and those of an earlier output stay."""

from __future__ import annotations

import hashlib
from typing import Final

from lexalcm.data.discover import DataFile, same_split
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.split_rule import SPLIT
from lexalcm.pipelines.convert.splits import SplitRule, folder_of

_LONGEST_NAME: Final = 200
_SHORTENED_NAME: Final = 50


def output_names(files: list[DataFile], rule: SplitRule, config: ConvertConfig) -> list[str]:
    """Names of output files: the source's own where they differ, and else with the folders in front."""
    folders = [
        folder_of(str(file.split), config.layout, where=file.path) if rule.kind == "path" else "" for file in files
    ]
    plain = [file.relative.rsplit("/", 1)[-1] for file in files]
    taken: dict[tuple[str, str], int] = {}
    for folder, name in zip(folders, plain):
        taken[folder, name.lower()] = taken.get((folder, name.lower()), 0) + 1
    names: list[str] = []
    used: set[tuple[str, str]] = set()
    for file, folder, base in zip(files, folders, plain):
        name = base
        if taken[folder, base.lower()] > 1:
            name = _joined(file, split=file.split if rule.kind == "path" else None)
        if (folder, name.lower()) in used or len(name.encode()) > _LONGEST_NAME:
            digest = hashlib.blake2b(file.relative.encode(), digest_size=8).hexdigest()
            name = f"{digest}-{base[-_SHORTENED_NAME:]}"
        used.add((folder, name.lower()))
        names.append(name)
    return names


def _joined(file: DataFile, *, split: str | None) -> str:
    *folders, name = file.relative.split("/")
    kept = [f for f in folders if split is None or not (f.startswith(f"{SPLIT}=") or same_split(f, split))]
    # A name that begins with a dot or an underscore would be passed over as unfinished.
    return "-".join([*kept, name]).lstrip("._")
