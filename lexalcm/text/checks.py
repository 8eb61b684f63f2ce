"""What is no text, and what no encoder may give and no decoder can put into words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from lexalcm.errors import DataError

_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")
_START: Final = 60


def has_half_character(text: str) -> bool:
    """Whether a lone surrogate stands in it, which no encoding of Unicode can hold."""
    return _HALF_CHARACTER.search(text) is not None


def start_of(sentence: str) -> str:
    """As much of it as a message can show."""
    return sentence if len(sentence) <= _START else f"{sentence[:_START]}..."


def check_sentences(sentences: Sequence[str], encoder: str) -> None:
    """
    :param encoder: Who reads them, for the message: ``SONAR``.
    :raises DataError: One is empty, or not Unicode.
    """
    for number, sentence in enumerate(sentences):
        if not sentence.strip():
            raise DataError(
                f"Sentence {number} of {len(sentences)} is empty. {encoder} has no concept for it; leave it out."
            )
        if has_half_character(sentence):
            raise DataError(f"Sentence {number} of {len(sentences)} has half a character, and so is not Unicode text.")


def check_encoded(concepts_NC: np.ndarray, sentences: Sequence[str], encoder: str) -> None:
    """
    :param encoder: Who made the concepts, for the message.
    :raises DataError: One is not finite; names its sentence.
    """
    if not (finite_N := np.isfinite(concepts_NC).all(axis=1)).all():
        number = int(finite_N.argmin())
        raise DataError(
            f'{encoder} gives a concept that is not finite for sentence {number}, "{start_of(sentences[number])}". '
            f"The data type may be too narrow: take float32 or bfloat16."
        )


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
