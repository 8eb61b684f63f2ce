"""stopes' classes, imported without what importing them does: it gives the root logger a handler and a level.

Whoever needs stopes imports it through here first.
"""

from __future__ import annotations

import logging

_root = logging.getLogger()
_handlers, _level = list(_root.handlers), _root.level

from stopes.core.launcher import ArrayTaskError, Launcher, TaskExecutionError  # noqa: E402
from stopes.core.stopes_module import Requirements, StopesModule  # noqa: E402
from stopes.modules.partitioned_data_mapper import (  # noqa: E402
    PartitionedDataMapper,
    PartitionedDataMapperConfig,
)

_root.handlers[:] = _handlers
_root.setLevel(_level)

__all__ = [
    "ArrayTaskError",
    "Launcher",
    "PartitionedDataMapper",
    "PartitionedDataMapperConfig",
    "Requirements",
    "StopesModule",
    "TaskExecutionError",
]
