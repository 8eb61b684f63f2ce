"""What is no text, and what no decoder can put into words."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from lexalcm.errors import DataError

_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")


def has_half_character(text: str) -> bool:
    """Whether a lone surrogate stands in it, which no encoding of Unicode can hold."""
    return _HALF_CHARACTER.search(text) is not None


def check_concepts(concepts_NC: np.ndarray, dim: int, reader: str) -> None:
    """
    :param reader: Who reads them, for the message: ``The decoder of card "x"``.
    :raises DataError: They are not ``[N, dim]``, or not finite.
    """
    if concepts_NC.ndim != 2 or concepts_NC.shape[1] != dim:
        raise DataError(
            f"{reader} reads concepts of {dim} numbers, [N, {dim}], but these have the shape {list(concepts_NC.shape)}."
        )
    if not (finite_N := np.isfinite(concepts_NC).all(axis=1)).all():
        raise DataError(f"Concept {int(finite_N.argmin())} of {len(concepts_NC)} has NaN or infinite values.")
