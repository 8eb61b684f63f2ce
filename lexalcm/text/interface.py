"""What the rooms above may know of a segmenter, an encoder and a decoder; SONAR, SaT and the stand-ins all fit it.

Shapes: N sentences or concepts, C dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Segmenter(Protocol):
    """Splits a text into sentences."""

    name: str

    def split(self, text: str, lang: str | None = None) -> list[str]:
        """The sentences in order, stripped, none of them empty; a text of white space gives none.

        :param lang: Code of the text's language; any is taken, and None where it is not known.
        """
        ...


class SentenceEncoder(Protocol):
    """Turns sentences into concepts."""

    name: str
    dim: int

    langs: Sequence[str] | None
    """Codes of the languages that it knows; None for an encoder that needs no language."""

    max_tokens: int | None
    """Of a sentence that it sees whole, marks included; None where there is no limit."""

    def encode(self, sentences: Sequence[str], lang: str | None = None) -> np.ndarray:
        """Returns float32 ``[N, C]``, raw, in the order given.

        :param lang: Code of the sentences' language, such as ``eng_Latn``; None for an encoder that needs none.
        """
        ...

    def encode_mixed(self, sentences: Sequence[str], langs: Sequence[str | None]) -> np.ndarray:
        """:meth:`encode` of sentences that have each a language of their own."""
        ...

    def over_limit(self, sentences: Sequence[str], langs: Sequence[str | None]) -> np.ndarray:
        """Returns bool ``[N]``: of which sentences only the start would be seen."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a vector depends on, as plain values, to be recorded next to the data."""
        ...


@dataclass(frozen=True)
class DecodedSentence:
    """A concept as text."""

    text: str
    cosine: float | None = None
    """Of the known sentence to the concept; from a decoder that looks sentences up, None from one that writes them."""


class ConceptDecoder(Protocol):
    """Turns concepts into sentences."""

    name: str
    options: Mapping[str, Any]
    """What shaped the text, as plain values, to be recorded next to it."""

    def decode(self, concepts_NC: np.ndarray, lang: str | None = None) -> list[DecodedSentence]:
        """One sentence a concept, in the order given.

        :param lang: Code of the language to write; None for a decoder that knows one language only.
        """
        ...
