"""Which split a document belongs to, decided by its id alone: not by order, shards or machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from lexalcm.errors import ConfigError

VALIDATION_SHARE: Final = 0.05
"""Of documents, where nobody says another."""

_STEPS: Final = 2**64
_ROUNDING: Final = 1e-9


def shares_of_splits(*, validation: float, test: float = 0.0) -> dict[str, float]:
    """Shares by name of split; what validation and test leave is ``train``. A split without documents is left out.

    :raises ConfigError: A share is out of its range, or nothing is left to train on.
    """
    for option, share in (("validation", validation), ("test", test)):
        if not 0.0 <= share < 1.0:
            raise ConfigError(f"The share of {option} must be at least 0 and below 1, but is {share}.")
    if validation + test >= 1.0:
        raise ConfigError(f"Shares of {validation} for validation and {test} for test leave nothing to train on.")
    shares = {"train": 1.0 - validation - test, "validation": validation, "test": test}
    return {split: share for split, share in shares.items() if share > 0.0}


def split_of(document_id: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """Draws a split by the hash of ``document_id``.

    :param shares: By split; they add up to 1.
    :param seed: Another one draws anew.
    :raises ValueError: The shares do not add up to 1.
    """
    if abs(sum(shares.values()) - 1.0) > _ROUNDING:
        raise ValueError(f"Shares must add up to 1, but are {dict(shares)}.")
    digest = hashlib.blake2b(document_id.encode(), digest_size=8, salt=seed.to_bytes(8, "little")).digest()
    place = int.from_bytes(digest, "little") / _STEPS
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    return next(reversed(shares))
