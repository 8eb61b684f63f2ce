"""What a reader's saved position belongs to, and how another number of ranks takes over.

With other files, ranks or settings a position would be another place. :func:`reshard` turns those of all ranks into
those of another number. Each then holds, as ``before``, where the ranks stood that began the epoch: what they left is
planned from that. It is gone once the epoch is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from fairseq2.logging import log

from lexalcm.data.discover import SourceFiles
from lexalcm.data.epoch_plan import Place, latest_epoch
from lexalcm.data.sources import ReadingConfig
from lexalcm.errors import DataError

_VERSION: Final = 3
_VERSION_TAKEN_OVER: Final = 4
"""Of a position in what ranks of another number left of an epoch, which releases that know version 3 alone would misread."""

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
        "rank": rank,
        "world_size": world_size,
        "files": _fingerprint(sources),
        "sources": _describe_sources(sources),
        **{name: getattr(reading, name) for name in _FIELDS},
    }


def check_belonging(saved: object, expected: dict[str, Any]) -> None:
    """:raises DataError: A saved position does not belong here; the message names both sides."""
    saved = _readable(saved)
    rank, world_size = expected["rank"], expected["world_size"]
    if (saved.get("rank"), saved.get("world_size")) != (rank, world_size):
        raise DataError(
            f"The saved position of the data is that of rank {saved.get('rank')} of {saved.get('world_size')}, but "
            f"this is rank {rank} of {world_size}. Resume with {saved.get('world_size')} rank(s)."
        )
    if saved.get("files") != expected["files"]:
        raise DataError(
            f"The dataset is not the one of the checkpoint: {_difference(str(saved.get('files')), expected['files'])}.\n"
            f"Resume on the same files, or begin a new run from the checkpoint's model."
        )
    for name, value in expected.items():
        if saved.get(name) != value:
            raise DataError(
                f"The saved position of the data is that of {name} {saved.get(name)}, but it is {value} now.\n"
                f"Resume with the same settings, or begin a new run from the checkpoint's model."
            )


def _difference(before: str, now: str) -> str:
    had, have = before.partition(":")[0], now.partition(":")[0]
    if had != have:
        return f"it had {had} file(s), and has {have} now"
    return f"of its {have} file(s), some have another name, size or row groups than they had"


def _readable(saved: object) -> dict[str, Any]:
    if not isinstance(saved, dict) or saved.get("version") not in (_VERSION, _VERSION_TAKEN_OVER):
        found = saved.get("version") if isinstance(saved, dict) else None
        raise DataError(
            f"The saved position of the data has version {found}, but this release reads versions {_VERSION} and "
            f"{_VERSION_TAKEN_OVER}. Resume with the release that saved it."
        )
    return saved


def to_save(belongs: dict[str, Any], position: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    """A reader's state: plain values, none of which changes when the reader goes on."""
    version = _VERSION_TAKEN_OVER if "before" in position else _VERSION
    return {"belongs": {"version": version, **belongs}, "position": position, "counts": dict(counts)}


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


def reshard(states: Sequence[Mapping[str, Any]], world_size: int) -> list[dict[str, Any]]:
    """Turns the states of all ranks, in their order, into those of ``world_size`` ranks that go on in their place.

    Of the epoch under way they read what is left, each window once; later epochs are those of any run of their number.
    Where nothing was read since an earlier change of number, that one is undone first.

    :raises DataError: The states are not those of all ranks at one step.
    """
    assert world_size >= 1
    _check_one_step(states)
    num_before = len(states)
    if num_before == world_size:
        return deepcopy([dict(state) for state in states])
    positions = [{k: v for k, v in state["position"].items() if k != "before"} for state in states]
    before = list(_befores(states)[0] if _befores(states) else [])
    if before and all(position == _start(before[-1]) for position in positions):
        positions = before.pop()
    if len(positions) != world_size:
        if any(position["streams"] != _start(positions)["streams"] for position in positions):
            before.append(positions)
        positions = [_start(positions)] * world_size
    counts = _spread([state["counts"] for state in states], world_size)
    belongs = {k: v for k, v in states[0]["belongs"].items() if k not in ("version", "rank", "world_size")}
    log.info(
        "Data - {} rank(s) take over from {} in epoch {}, after {:,} documents and {:,} concepts.",
        world_size,
        num_before,
        positions[0]["epoch"],
        sum(count["documents"] for count in counts),
        sum(count["concepts"] for count in counts),
    )
    return [
        to_save(
            {"rank": rank, "world_size": world_size, **belongs},
            deepcopy({**position, "before": before} if before else position),
            counts[rank],
        )
        for rank, position in enumerate(positions)
    ]


def places_before(before: Sequence[Sequence[Mapping[str, Any]]], stream: int, *, epoch: int) -> list[list[Place]]:
    """Where the ranks in ``before`` stood in one stream; nothing for a stream that is behind that epoch.

    :param epoch: Of the stream now.
    """
    places = []
    for positions in before:
        streams = [position["streams"][stream] for position in positions]
        places.append([(place["epoch"], place["pool"], place["window"]) for place in streams])
    # Ranks that all stood at an epoch's start left it whole: it is dealt anew.
    places = [by_rank for by_rank in places if len(set(by_rank)) > 1 or by_rank[0][1:] != (0, 0)]
    return places if places and epoch <= latest_epoch(places[-1]) else []


def _start(positions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where ranks begin that take over from others."""
    return {
        "epoch": positions[0]["epoch"],
        # What an earlier rank has drawn is not drawn again.
        "drawn": max(position["drawn"] for position in positions),
        "streams": [
            {"epoch": max(place["epoch"] for place in places), "pool": 0, "window": 0}
            for places in zip(*(position["streams"] for position in positions), strict=True)
        ],
    }


def _befores(states: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Ranks drop it when they are through with the epoch; in a mixture, one may be sooner than another."""
    return [state["position"]["before"] for state in states if "before" in state["position"]]


def _spread(counts: Sequence[Mapping[str, int]], world_size: int) -> list[dict[str, int]]:
    """Gives each rank about the same part of all sums but that of steps, which ranks take together."""
    sums = {name: sum(count[name] for count in counts) for name in counts[0]}
    return [
        {
            name: counts[0][name] if name == "steps" else (total + world_size - 1 - rank) // world_size
            for name, total in sums.items()
        }
        for rank in range(world_size)
    ]


def _check_one_step(states: Sequence[Mapping[str, Any]]) -> None:
    told = {}
    for rank, state in enumerate(states):
        belongs = _readable(state.get("belongs"))
        if (belongs.get("rank"), belongs.get("world_size")) != (rank, len(states)):
            raise DataError(
                f"The checkpoint has {len(states)} saved position(s) of the data, but number {rank} is that of rank "
                f"{belongs.get('rank')} of {belongs.get('world_size')}.\n"
                f"It is not whole: resume from another checkpoint."
            )
        told[rank] = {
            **{name: value for name, value in belongs.items() if name not in ("rank", "version")},
            "epoch": state["position"]["epoch"],
            "step of the epoch": state["counts"]["steps"],
        }
    for rank, values in told.items():
        for name, value in values.items():
            if value != told[0].get(name):
                raise DataError(
                    f"The checkpoint's saved positions of the data do not belong together: {name} is "
                    f"{told[0].get(name)} on rank 0, but {value} on rank {rank}.\nResume from another checkpoint."
                )
    if any(before != _befores(states)[0] for before in _befores(states)):
        raise DataError(
            "The checkpoint's saved positions of the data do not belong together: ranks differ in which others they "
            "took over from.\nResume from another checkpoint."
        )
