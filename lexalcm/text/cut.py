"""Cuts a text that is too long for an encoder, where it hurts least."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import numpy as np
import regex

_UNEVEN_COST: Final = 0.03
_SPACE_COSTS: Final = (0.0, 0.05, 0.08)
"""Of a cut after white space: behind a sentence mark, behind a comma or the like, between words."""

_OTHER_COSTS: Final = (20.0, 21.0, 50.0)
"""Of a cut where there is no white space: behind the same, and inside a word."""

_INSIDE: Final = 2
_SENTENCE_MARKS: Final = ".!?\u2026\u3002\uff01\uff1f"
_WITHIN_CHARACTER_COST: Final = 200.0
_LEAST_LOG_PROBABILITY: Final = -15.0
"""Below the steps between the costs: a bad place stays worse than a good one, whatever a model says."""

_CHARACTER: Final = regex.compile(r"\X")
"""What a reader takes for one: with its combining marks, an emoji with what is joined to it, a flag, CR LF."""

_HALVES: Final = regex.compile("[\ud800-\udbff][\udc00-\udfff]")
_LOOK_BACK: Final = 32


def cut_long(text: str, max_length: int, log_probabilities: np.ndarray | None = None) -> list[str]:
    """Cuts a text into pieces of at most ``max_length`` characters that join to it again.

    White space goes to the piece before it, or, where a text begins with it, to the first one; no piece is blank,
    unless the text is. Only white space makes a piece too long: a run of it as long as ``max_length`` or longer, or
    what stands around a single character.

    Of all such cuts it takes the one with the least cost: no more cuts than needed; after white space, best behind a
    sentence mark, then behind a comma or the like; else after such a mark; else inside a word; inside what a reader
    takes for one character last of all. Equal ones differ by what a model says, and by how even the pieces are.

    :param log_probabilities: ``[len(text)]``, at most 0: of a sentence ending at that character.
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, but is {max_length}.")
    if len(text) <= max_length or not text.strip():
        return [text] if text else []
    long_space = re.compile(rf"\s{{{max_length},}}")
    stops = sorted({*(run.end() for run in long_space.finditer(text) if run.start() > 0), len(text)})
    pieces: list[str] = []
    for start, stop in zip((0, *stops), stops):
        # Space that no piece can hold stands outside of what is counted, before the first one or behind the last.
        leading = long_space.match(text, start, stop)
        first = start if leading is None else leading.end()
        last = first + len(text[first:stop].rstrip())
        last = last if stop - last >= max_length else stop
        of_part = None if log_probabilities is None else log_probabilities[first:last]
        part = _cut_part(text[first:last], max_length, of_part)
        part[0] = text[start:first] + part[0]
        part[-1] += text[last:stop]
        pieces += part
    return pieces


def end_of_character(text: str, position: int) -> int:
    """The first place from ``position`` on that is not inside what a reader takes for one character."""
    if position >= len(text) or text[position - 1 : position + 1].isascii():
        return position
    if _HALVES.match(text, position - 1):
        return position + 1
    for match in _CHARACTER.finditer(text, max(0, position - _LOOK_BACK)):
        if match.end() >= position:
            return match.end()
    return position


def _cut_part(text: str, max_length: int, log_probabilities: np.ndarray | None) -> list[str]:
    """For a text in which no white space is as long as ``max_length``."""
    gains = _gains(text, log_probabilities)
    body = len(text) - len(text.lstrip())
    uneven = _UNEVEN_COST * (np.arange(max_length, 0, -1) / max_length) ** 2
    # best[i]: of the cuts before character i, the last one at i. Later places come first among equals.
    best = np.full(len(text) + 1, -np.inf)
    best[0] = 0.0
    previous = np.zeros(len(text) + 1, np.int64)
    last = 0
    for end in range(body + 1, len(text) + 1):
        if end < len(text) and text[end].isspace():
            continue
        window = best[max(0, end - max_length) : end]
        scores = (window - uneven[-len(window) :])[::-1]
        nearest = int(scores.argmax())
        if scores[nearest] > -np.inf:
            previous[end], best[end] = end - 1 - nearest, scores[nearest] + gains[end - 1]
        else:
            # One character between two runs of white space that do not fit together.
            previous[end], best[end] = last, best[last] + gains[end - 1]
        last = end
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
    rank = _INSIDE
    for i, character in enumerate(text[:-1]):
        if character.isspace():
            gains[i] -= _SPACE_COSTS[rank]
        else:
            rank = _rank(character, rank)
            gains[i] -= _OTHER_COSTS[rank]
    for pattern in (_CHARACTER, _HALVES):
        for match in pattern.finditer(text):
            gains[match.start() : match.end() - 1] -= _WITHIN_CHARACTER_COST
    return gains


def _rank(character: str, before: int) -> int:
    """Which of the costs holds behind a character, given which one held before it."""
    if character in _SENTENCE_MARKS:
        return 0
    category = unicodedata.category(character)
    if before == 0 and (category in ("Pe", "Pf") or character in "\"'"):
        return 0
    return 1 if category.startswith("P") and category not in ("Ps", "Pi") else _INSIDE


def _carried_over_space(text: str, log_probabilities: np.ndarray) -> np.ndarray:
    """A cut after white space ends the sentence before it."""
    carried = log_probabilities.copy()
    for i in range(1, len(text)):
        if text[i].isspace():
            carried[i] = max(carried[i], carried[i - 1])
    return carried
