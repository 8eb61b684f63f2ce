"""What a reader's saved position belongs to: with other files, ranks or settings it would be another place."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from lexalcm.data.discover import SourceFiles
from lexalcm.data.sources import ReadingConfig
from lexalcm.errors import DataError

_VERSION: Final = 3

_FIELDS: Final = (
    "max_seq_len",
    "min_document_len",
    "max_document_len",
    "hold_out_every",
    "shuffle",
    "shuffle_window",
    "seed",
)


def belonging(sources: list[SourceFiles], reading: ReadingConfig, *, rank: int, world_size: int) -> dict[str, Any]:
    """Plain values to save beside a position. How batches are cut and made is not among them: it may change."""
    return {
        "version": _VERSION,
        "rank": rank,
        "world_size": world_size,
        "files": _fingerprint(sources),
        "sources": _describe_sources(sources),
        **{name: getattr(reading, name) for name in _FIELDS},
    }


def check_belonging(saved: object, expected: dict[str, Any]) -> None:
    """:raises DataError: A saved position does not belong here; the message names both sides."""
    if not isinstance(saved, dict) or saved.get("version") != _VERSION:
        found = saved.get("version") if isinstance(saved, dict) else None
        raise DataError(
            f"The saved position of the data has version {found}, but this release reads version {_VERSION}. "
            f"Resume with the release that saved it."
        )
    rank, world_size = expected["rank"], expected["world_size"]
    if (saved.get("rank"), saved.get("world_size")) != (rank, world_size):
        raise DataError(
            f"The saved position of the data is that of rank {saved.get('rank')} of {saved.get('world_size')}, but "
            f"this is rank {rank} of {world_size}. Resume with {saved.get('world_size')} rank(s)."
        )
    if saved.get("files") != expected["files"]:
        raise DataError(
            f"The dataset is not the one of the checkpoint: its files were {saved.get('files')}, but are "
            f"{expected['files']} now (number, then a digest of names, sizes and row groups).\n"
            f"Resume on the same files, or begin a new run from the checkpoint's model."
        )
    for name, value in expected.items():
        if saved.get(name) != value:
            raise DataError(
                f"The saved position of the data is that of {name} {saved.get(name)}, but it is {value} now.\n"
                f"Resume with the same settings, or begin a new run from the checkpoint's model."
            )


def _fingerprint(sources: list[SourceFiles]) -> str:
    digest = hashlib.sha256()
    count = 0
    for source in sources:
        for file in source.files:
            count += 1
            digest.update(f"{source.config.name}\0{file.relative}\0{file.size}\0{file.rows}\n".encode())
    return f"{count}:{digest.hexdigest()[:16]}"


def _describe_sources(sources: list[SourceFiles]) -> str:
    """What decides which rows of the files are read."""
    described = []
    for source in sources:
        config = source.config
        filters = "".join(f", {f.describe()}" for f in config.filters)
        weight = "" if config.weight is None else f", weight {config.weight:g}"
        others = (config.text_column, config.target_column, config.target_text_column)
        columns = ", ".join([str(config.embedding_column), *(column for column in others if column is not None)])
        described.append(f"{config.name} ({columns}{filters}{weight})")
    return "; ".join(described)
