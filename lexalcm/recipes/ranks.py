"""What one rank does for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fairseq2.gang import Gang, all_sum, broadcast_flag

from lexalcm.errors import RunError

_TRIES: Final = 10
_SECONDS_A_TRY: Final = 0.5


def check_is_shared(folder: Path, gang: Gang) -> None:
    """To be called on all ranks, for a folder that rank 0 has made.

    :raises RunError: Another one does not see it; on all ranks.
    """
    tries = 0
    # What one machine has made may take a moment to be seen by another.
    while not (is_seen := folder.is_dir()) and tries < _TRIES:
        tries += 1
        time.sleep(_SECONDS_A_TRY)
    if gang.size > 1 and all_sum(gang, int(not is_seen)) > 0:
        raise RunError(
            f"{folder} is not the same folder on all ranks: rank {gang.rank} {'sees' if is_seen else 'does not see'} what "
            f"rank 0 has made.\nName one that all machines share: OUTPUT_DIR, or --checkpoint-dir DIR."
        )


def on_first_rank(gang: Gang, act: Callable[[], None]) -> None:
    """Calls ``act`` on rank 0 while the others wait. What it raises ends all of them.

    :raises RunError: It failed, on the other ranks.
    """
    failure: Exception | None = None
    if gang.rank == 0:
        try:
            act()
        except Exception as ex:  # raised again as soon as the others know
            failure = ex
    if gang.size > 1 and broadcast_flag(gang, failure is not None) and failure is None:
        raise RunError("Rank 0 has failed; its message says why.")
    if failure is not None:
        raise failure
