"""What all segmenters share: from the places where sentences end to pieces that join to the text again."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Literal, get_args

import numpy as np

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.text.cut import cut_long, end_of_character

Newlines = Literal["line", "paragraph", "ignore"]
"""Where a sentence ends besides: at each line break, at each empty line, or at neither."""

Ends = tuple[set[int], np.ndarray | None]
"""Where the sentences of a text end, as the number of characters before, and the log probability of an end after each
character ``[len(text)]``, if it is known."""

MAX_LENGTH: Final = 250
"""Characters; nearly always within SONAR's 512 tokens."""

_BREAK: Final = r"[\n\r\u2028\u2029](?:(?<=\r)\n|(?!(?<=\r)\n))"
"""CR LF is one, never two."""

_BREAKS: Final = {
    "line": re.compile(_BREAK),
    "paragraph": re.compile(rf"{_BREAK}[^\S\r\n]*{_BREAK}"),
}
_ADDRESS: Final = re.compile(r"(?::(?<=\w:)//|www\.)[!-~]+")
"""Its word before ``://`` is looked up behind: a search for words would read a text without spaces over and over."""


class CuttingSegmenter(ABC):
    """Cuts a text where a subclass says that sentences end, at line breaks, and where a sentence gets too long."""

    name: str
    kind: ClassVar[str]

    def __init__(self, *, max_length: int = MAX_LENGTH, newlines: Newlines = "line") -> None:
        """
        :param max_length: Of a sentence, in characters; longer ones are cut at the best place that there is.
        :raises ConfigError: A value out of its range.
        """
        if max_length < 1:
            raise ConfigError(f"`max_length` of a segmenter must be at least 1 character, but is {max_length}.")
        if newlines not in get_args(Newlines):
            raise ConfigError(f"`newlines`: {unknown_name('way to treat line breaks', newlines, get_args(Newlines))}")
        self.max_length = max_length
        self.newlines = newlines

    def split(self, text: str, lang: str | None = None) -> list[str]:
        """The sentences, stripped, none of them empty."""
        return [stripped for piece in self.cut(text, lang) if (stripped := piece.strip())]

    def cut(self, text: str, lang: str | None = None) -> list[str]:
        """:meth:`cut_many` of one text."""
        return self.cut_many([text], [lang])[0]

    def cut_many(self, texts: Sequence[str], langs: Sequence[str | None] | None = None) -> list[list[str]]:
        """The sentences of each text with the white space after them; they join to the text.

        None is longer than ``max_length``, unless by white space that has to go somewhere (see :func:`cut_long`), and
        none is blank, unless the text is. What comes out for a text is the same whatever stands beside it.

        :param langs: A code such as ``eng_Latn`` for each text; any is taken, and None where it is not known.
        """
        langs = [None] * len(texts) if langs is None else langs
        if len(langs) != len(texts):
            raise ValueError(f"There are {len(texts)} texts but {len(langs)} languages.")
        pieces = [[text] if text else [] for text in texts]
        rows = [i for i, text in enumerate(texts) if text.strip()]
        found = self._find_ends([texts[i] for i in rows], [langs[i] for i in rows])
        for i, (ends, log_probabilities) in zip(rows, found, strict=True):
            pieces[i] = list(self._cut_at(texts[i], ends, log_probabilities))
        return pieces

    def facts(self) -> dict[str, Any]:
        """What shapes the sentences, as plain values, to be recorded next to them; None is what this kind lacks."""
        return {
            "name": self.name,
            "kind": self.kind,
            "device": None,
            "threshold": None,
            "max_length": self.max_length,
            "newlines": self.newlines,
            "backend": None,
        }

    @abstractmethod
    def _find_ends(self, texts: Sequence[str], langs: Sequence[str | None]) -> Iterable[Ends]:
        """For each text, of which none is only white space."""

    def _breaks(self, text: str) -> list[int]:
        """Where line breaks end a sentence."""
        if self.newlines == "ignore":
            return []
        return [match.end() for match in _BREAKS[self.newlines].finditer(text)]

    def _cut_at(self, text: str, ends: set[int], log_probabilities: np.ndarray | None) -> Iterator[str]:
        start = 0
        # A piece ends behind this; white space that the text begins with is none.
        least = len(text) - len(text.lstrip())
        for end in sorted({*(ends - _within_addresses(text, ends)), *self._breaks(text), len(text)}):
            end = end_of_character(text, end)
            if end <= least:
                continue
            while end < len(text) and text[end].isspace():
                end += 1
            of_piece = None if log_probabilities is None else log_probabilities[start:end]
            yield from cut_long(text[start:end], self.max_length, of_piece)
            start = least = end


def _within_addresses(text: str, ends: set[int]) -> set[int]:
    """Those of the ends that are inside of an address."""
    within: set[int] = set()
    ordered = sorted(ends)
    before = 0
    for address in _ADDRESS.finditer(text):
        start, end = address.span()
        if text[start] == ":":
            while start > before and (text[start - 1].isalnum() or text[start - 1] == "_"):
                start -= 1
        within.update(ordered[bisect_right(ordered, start) : bisect_left(ordered, end)])
        before = end
    return within
