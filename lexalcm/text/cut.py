"""Cuts a text that is too long for an encoder, where it hurts least."""

from __future__ import annotations

import unicodedata
from typing import Final

import numpy as np

_PUNCTUATION_COST: Final = 20.0
_INSIDE_COST: Final = 50.0
_WITHIN_SPACE_COST: Final = 60.0
_WITHIN_CHARACTER_COST: Final = 200.0
_LEAST_LOG_PROBABILITY: Final = -15.0
"""Below the steps between the costs: a bad place stays worse than a good one, whatever a model says."""


def cut_long(text: str, max_length: int, log_probabilities: np.ndarray | None = None) -> list[str]:
    """Cuts a text into pieces of at most ``max_length`` characters that join to it again.

    Of all such cuts it takes the one with the least cost: a cut after white space is free, one after a punctuation mark
    costs less than one inside a word, and one before a combining mark most. Equal ones differ by what a model says.

    :param log_probabilities: ``[len(text)]``, at most 0: of a sentence ending at that character.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, but is {max_length}.")
    if len(text) <= max_length:
        return [text] if text else []
    gains = _gains(text, log_probabilities)
    # best[i]: of the cuts before character i, the last one at i. Later places come first among equals.
    best = np.full(len(text) + 1, -np.inf)
    best[0] = 0.0
    previous = np.zeros(len(text) + 1, np.int64)
    for end in range(1, len(text) + 1):
        window = best[max(0, end - max_length) : end]
        previous[end] = end - 1 - int(window[::-1].argmax())
        best[end] = best[previous[end]] + gains[end - 1]
    ends = [len(text)]
    while ends[-1] > 0:
        ends.append(int(previous[ends[-1]]))
    ends.reverse()
    return [text[start:end] for start, end in zip(ends, ends[1:])]


def _gains(text: str, log_probabilities: np.ndarray | None) -> np.ndarray:
    """What a cut after each character is worth, less than 0 each, so that no more are made than needed."""
    gains = np.full(len(text), -1.0)
    if log_probabilities is not None:
        gains += _carried_over_space(text, np.maximum(log_probabilities, _LEAST_LOG_PROBABILITY))
    for i, character in enumerate(text[:-1]):
        following = text[i + 1]
        if _joins(character, following):
            gains[i] -= _WITHIN_CHARACTER_COST
        elif following.isspace():
            gains[i] -= _WITHIN_SPACE_COST
        elif not character.isspace():
            gains[i] -= _PUNCTUATION_COST if unicodedata.category(character).startswith("P") else _INSIDE_COST
    return gains


def _joins(character: str, following: str) -> bool:
    """Both belong to one character on the screen."""
    joiner = "\u200d"
    return character == joiner or following == joiner or unicodedata.category(following) in ("Mn", "Mc", "Me")


def _carried_over_space(text: str, log_probabilities: np.ndarray) -> np.ndarray:
    """A cut after white space ends the sentence before it."""
    carried = log_probabilities.copy()
    for i in range(1, len(text)):
        if text[i].isspace():
            carried[i] = max(carried[i], carried[i - 1])
    return carried
