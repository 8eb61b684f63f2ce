"""What one rank does for all of them."""

from __future__ import annotations

from collections.abc import Callable

from fairseq2.gang import Gang, broadcast_flag

from lexalcm.errors import RunError


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
