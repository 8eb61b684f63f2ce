"""Raw documents: which files hold them, what columns they have, and how they are shared out to workers.

An input is looked through once, in bounded memory: files of text whole, of parquet and Arrow files the footers and ids.
What cannot be read is said then, by file and line, and not by a worker hours later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from lexalcm.errors import ConfigError
from lexalcm.pipelines.prepare.raw_config import InputConfig
from lexalcm.pipelines.prepare.raw_pass import InputPass
from lexalcm.pipelines.prepare.raw_plan import RawPlan, RawShardsConfig
from lexalcm.pipelines.prepare.raw_schema import ID_COLUMN, PLACE_COLUMN, ROW_COLUMN
from lexalcm.pipelines.prepare.raw_shards import RawShard

__all__ = [
    "ID_COLUMN",
    "PLACE_COLUMN",
    "ROW_COLUMN",
    "InputConfig",
    "RawPlan",
    "RawShard",
    "RawShardsConfig",
    "plan_inputs",
]

_BYTES_PER_SHARD: Final = 8 * 2**20
_MOST_SHARDS: Final = 100_000


def plan_inputs(
    config: InputConfig,
    *,
    num_shards: int | None = None,
    least_shards: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> RawPlan:
    """Looks through an input and shares its documents out.

    :param num_shards: At most one a document; ``None``: of about 8 MiB each, and at least ``least_shards``.
    :param progress: Told now and then how many bytes of how many have been looked through, on disk.
    :raises ConfigError: A setting cannot be honoured.
    :raises DataError: Something is missing, damaged or not of one type; ids come twice; there is no document.
    """
    config.check()
    if num_shards is not None and num_shards < 1:
        raise ConfigError(f"`num_shards` must be at least 1, but is {num_shards}.")
    done = InputPass(config, progress)
    done.run()
    wanted = num_shards or max(least_shards, min(math.ceil(done.num_bytes / _BYTES_PER_SHARD), _MOST_SHARDS))
    return done.plan(max(1, min(wanted, done.num_documents)))
