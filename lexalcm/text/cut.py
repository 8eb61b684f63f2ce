"""Cuts a text that is too long for an encoder, where it hurts least."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

import numpy as np
import regex

_UNEVEN_COST: Final = 0.03
_COSTS: Final = np.array(((20.0, 21.0, 50.0), (0.0, 0.05, 0.08)))
"""Of a cut without and with white space before it: behind a sentence mark, a comma or the like, anything else."""

_WITHIN_CHARACTER_COST: Final = 200.0
_WORST_COSTS: Final = (0.08, 21.0, 50.0, np.inf)
"""Of the places that a text is cut at, from the best kinds alone to all."""

_LEAST_LOG_PROBABILITY: Final = -15.0
"""Below the steps between the costs: a bad place stays worse than a good one, whatever a model says."""

_CELLS: Final = 8_192
"""Of a matrix of scores: small enough for a processor's cache."""

_SENTENCE_MARKS: Final = ".!?\u2026\u3002\uff01\uff1f"
_SENTENCE_MARK, _OTHER_MARK, _NO_MARK, _CLOSING, _SPACE, _JOINS = 0, 1, 2, 3, 4, 8
_RANKS: Final = np.array((0, 1, 2, 1))
"""Where the costs of a kind stand in their row; a closing mark has those of a sentence mark that it stands behind."""

_CHARACTER: Final = regex.compile(r"\X")
"""What a reader takes for one: with its combining marks, an emoji with what is joined to it, a flag, CR LF."""

_HALVES: Final = regex.compile("[\ud800-\udbff][\udc00-\udfff]")
_LOOK_BACK: Final = 32


class _Kinds(dict[int, int]):
    """The kind of each character, by its code, plus ``_JOINS`` if it can be one with another; found out once each.

    Between two characters of which neither joins, a reader's character ends (but for CR LF).
    """

    def __missing__(self, code: int) -> int:
        character = chr(code)
        pairs = (f"a{character}", f"{character}a", f"{character}{character}")
        joins = "\ud800" <= character <= "\udfff" or any(_CHARACTER.fullmatch(pair) for pair in pairs)
        self[code] = _kind(character) + _JOINS * joins
        return self[code]


def _kind(character: str) -> int:
    category = unicodedata.category(character)
    if character.isspace():
        return _SPACE
    if character in _SENTENCE_MARKS:
        return _SENTENCE_MARK
    if category in ("Pe", "Pf") or character in "\"'":
        return _CLOSING
    return _OTHER_MARK if category.startswith("P") and category not in ("Ps", "Pi") else _NO_MARK


_KINDS: Final = _Kinds()


def cut_long(text: str, max_length: int, log_probabilities: np.ndarray | None = None) -> list[str]:
    """Cuts a text into pieces of at most ``max_length`` characters that join to it again.

    White space goes to the piece before it, or, where a text begins with it, to the first one; no piece is blank,
    unless the text is. Only white space makes a piece too long: a run of it as long as ``max_length`` or longer, or
    what stands around a single character.

    Of all such cuts it takes the one with the least cost: no more cuts than needed; after white space, best behind a
    sentence mark, then behind a comma or the like; else after such a mark; else inside a word; inside what a reader
    takes for one character last of all. Equal ones differ by what a model says, and by how even the pieces are.
    A text that can be cut after white space alone is cut nowhere else, and so on down the list, whatever a model says.

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
    if not 0 < position < len(text):
        return position
    if not (_KINDS[ord(text[position - 1])] | _KINDS[ord(text[position])]) & _JOINS:
        return position
    if _HALVES.match(text, position - 1):
        return position + 1
    for match in _CHARACTER.finditer(text, max(0, position - _LOOK_BACK)):
        if match.end() >= position:
            return match.end()
    return position


def _cut_part(text: str, max_length: int, log_probabilities: np.ndarray | None) -> list[str]:
    """For a text in which no white space is as long as ``max_length``."""
    if len(text) <= max_length:
        return [text]
    places, costs, gains = _places(text, log_probabilities)
    # Else one character stands between two runs of white space that do not fit together.
    start, gain = (0, 0.0) if places[0] <= max_length else (int(places[0]), gains[0])
    for worst in _WORST_COSTS:
        # The best kinds do for nearly all texts, and then the best of all cuts has no other: two places of better
        # kinds can always stand for one of a worse kind, and cost less.
        usable = (costs <= worst) & (places > start)
        ends = np.concatenate(([start], places[usable]))
        if (ends[1:] - ends[:-1]).max(initial=0) <= max_length:
            break
    bounds = sorted({0, *_best_ends(ends, np.concatenate(([gain], gains[usable])), max_length)})
    return [text[start:end] for start, end in zip(bounds, bounds[1:])]


def _places(text: str, log_probabilities: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a text can be cut ``[M]``, its end last, with what a cut there costs and what it is worth in all.

    That is less than 0 each, so that no more cuts are made than needed.
    """
    kinds = np.frombuffer(text.translate(_KINDS).encode("latin-1"), np.uint8)
    joins, kinds = kinds >= _JOINS, kinds % _JOINS
    # White space goes to the character before it.
    starts = np.flatnonzero(kinds != _SPACE)
    places = np.append(starts[1:], len(text))
    kinds = kinds[starts]
    closed = np.maximum.accumulate(np.where(kinds == _CLOSING, 0, np.arange(len(kinds))))
    ranks = np.where(kinds[closed] == _SENTENCE_MARK, 0, _RANKS[kinds])
    costs = _COSTS[(places - starts > 1).astype(int), ranks]
    costs[-1] = 0.0
    gains = np.full(len(places), -1.0)
    if log_probabilities is not None:
        gains += np.maximum.reduceat(np.maximum(log_probabilities, _LEAST_LOG_PROBABILITY), starts)
    gains -= costs
    if joins.any():
        within = _within_characters(text)[places] * _WITHIN_CHARACTER_COST
        costs, gains = costs + within, gains - within
    return places, costs, gains


def _within_characters(text: str) -> np.ndarray:
    within = np.zeros(len(text) + 1, np.bool_)
    for pattern in (_CHARACTER, _HALVES):
        for match in pattern.finditer(text):
            within[match.start() + 1 : match.end()] = True
    return within


@lru_cache(maxsize=16)
def _uneven_costs(max_length: int) -> np.ndarray:
    """Of a piece of each length ``[2 * max_length + 1]``; one below 1 is read from the end."""
    lengths = np.arange(2 * max_length + 1)
    costs = np.where(lengths <= max_length, _UNEVEN_COST * (lengths / max_length) ** 2, np.inf)
    costs[0] = np.inf
    return costs


def _best_ends(places: np.ndarray, gains: np.ndarray, max_length: int) -> list[int]:
    """Which places to cut at, the last one first, and then the first one, where the first piece begins.

    :param places: ``[M]``, ascending, none further than ``max_length`` from the one before.
    """
    uneven = _uneven_costs(max_length)
    earliest = places.searchsorted(places - max_length).tolist()
    latest = places.searchsorted(places + max_length, "right").tolist()
    done, most = latest[0], max(1, _CELLS // max_length)
    # best[i]: of the cuts before place i, the last one at i. Later places come first among equals. As two pieces that
    # fit into one are never best, one piece alone leads as far as it can, and those that end in a later stretch of
    # max_length begin before it, or behind a piece that does: a whole stretch takes two steps.
    best = gains.copy()
    best[1:done] += best[0] - uneven[places[1:done] - places[0]]
    previous = np.zeros(len(places), np.int64)
    while done < len(places):
        stop = min(latest[done - 1], done + most)
        scores = np.full(stop - done, -np.inf)
        for first, behind in ((earliest[done], done), (done, stop)):
            begins = np.arange(behind - 1, first - 1, -1)
            table = best[begins] - uneven.take(places[done:stop, None] - places[begins], mode="wrap")
            found = table.max(1)
            np.copyto(previous[done:stop], begins[table.argmax(1)], where=found >= scores)
            np.maximum(scores, found, out=scores)
            np.add(scores, gains[done:stop], out=best[done:stop])
        done = stop
    cuts, i = [int(places[-1])], len(places) - 1
    while i > 0:
        i = int(previous[i])
        cuts.append(int(places[i]))
    return cuts
