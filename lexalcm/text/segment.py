"""Splits text into sentences: by SaT, by punctuation, or by line.

What a segmenter gives depends on the text and its options alone, never on the texts beside it.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from lexalcm.errors import CheckpointError, ConfigError, unknown_name
from lexalcm.text.cut import cut_long

Newlines = Literal["line", "paragraph", "ignore"]
"""Where a sentence ends besides: at each line break, at each empty line, or at neither."""

MAX_LENGTH: Final = 250
"""Characters; nearly always within SONAR's 512 tokens."""

SAT_NAMES: Final = tuple(f"sat-{layers}l{kind}" for layers in (1, 3, 6, 9, 12) for kind in ("", "-sm"))
DEFAULT_SEGMENTER: Final = "sat-3l-sm"

_SAT_HUB_NAME: Final = re.compile(r"sat-\d+l(-no-limited-lookahead)?(-sm)?")
_SAT_TOKENIZER: Final = "facebookAI/xlm-roberta-base"
_TOKENIZER_FILES: Final = ("tokenizer.json", "sentencepiece.bpe.model")

_BREAK: Final = r"(?:\r\n|[\n\r\u2028\u2029])"
_BREAKS: Final = {
    "line": re.compile(_BREAK),
    "paragraph": re.compile(rf"{_BREAK}[^\S\r\n]*{_BREAK}"),
}
_CLOSING: Final = "[\"')\\]}\u00bb\u2019\u201d\u300d\u300f\uff09]*"
_SENTENCE_END: Final = re.compile(rf"[.!?\u2026]+{_CLOSING}(?=\s|$)|[\u3002\uff01\uff1f]+{_CLOSING}")

_log = logging.getLogger(__name__)


class CuttingSegmenter(ABC):
    """Cuts a text where a subclass says that sentences end, at line breaks, and where a sentence gets too long."""

    name: str

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

    def split(self, text: str) -> list[str]:
        """The sentences, stripped, none of them empty."""
        return [stripped for piece in self.cut(text) if (stripped := piece.strip())]

    def split_many(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """:meth:`split` for each text, in order."""
        return map(self.split, texts)

    def cut(self, text: str) -> list[str]:
        """The sentences with the white space after them, none longer than ``max_length``; they join to ``text``."""
        if not text.strip():
            return _in_steps(text, self.max_length)
        ends, log_probabilities = self._find_ends(text)
        if self.newlines != "ignore":
            ends = {*ends, *(match.end() for match in _BREAKS[self.newlines].finditer(text))}
        pieces: list[str] = []
        start = 0
        for end in sorted({*ends, len(text)}):
            while end < len(text) and text[end].isspace():
                end += 1
            if end > start:
                of_piece = None if log_probabilities is None else log_probabilities[start:end]
                pieces += self._cut_to_length(text[start:end], of_piece)
                start = end
        return pieces

    @abstractmethod
    def _find_ends(self, text: str) -> tuple[set[int], np.ndarray | None]:
        """Where sentences end, as the number of characters before, and the log probability of an end after each
        character ``[len(text)]``, if it is known. ``text`` is not only white space."""

    def _cut_to_length(self, piece: str, log_probabilities: np.ndarray | None) -> list[str]:
        if len(piece) <= self.max_length:
            return [piece]
        body = piece.rstrip()
        of_body = None if log_probabilities is None else log_probabilities[: len(body)]
        *cut, last = cut_long(body, self.max_length, of_body)
        space, room = piece[len(body) :], self.max_length - len(last)
        return [*cut, last + space[:room], *_in_steps(space[room:], self.max_length)]


class SatSegmenter(CuttingSegmenter):
    """Segment any Text, by wtpsplit: https://arxiv.org/abs/2406.16678.

    Each text goes through the model by itself, and whole: what is beside it in a batch would change its last bits.
    wtpsplit's own ``max_length`` is not used: it fills segments up to that length, many sentences in one.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_SEGMENTER,
        *,
        tokenizer: str | Path | None = None,
        device: str = "cpu",
        max_length: int = MAX_LENGTH,
        threshold: float | None = None,
        newlines: Newlines = "line",
        batch_size: int = 32,
    ) -> None:
        """
        :param model: A name of the hub, such as ``sat-3l-sm``, or a folder; a folder needs no network.
        :param tokenizer: A name of the hub, or a folder; the model's folder where that holds one.
        :param threshold: A sentence ends where its probability is higher; None is what wtpsplit takes for the model.
        :param batch_size: Windows of one text that go through the model together.
        :raises CheckpointError: The model or its tokenizer is not there, or damaged.
        :raises ConfigError: A value out of its range.
        """
        super().__init__(max_length=max_length, newlines=newlines)
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"`threshold` of a segmenter must be between 0 and 1, but is {threshold}.")
        self._batch_size = batch_size
        # The name of the last folder alone: a folder called `small` above it says nothing about the model.
        self.name = Path(model).name
        self.threshold = _usual_threshold(self.name) if threshold is None else threshold
        self._sat = _load_sat(model, tokenizer)
        self._sat.model.to(device)
        self.device = str(next(self._sat.model.parameters()).device)
        _log.info("Sentences are split by %s on %s, threshold %g.", self.name, self.device, self.threshold)

    def _find_ends(self, text: str) -> tuple[set[int], np.ndarray | None]:
        probabilities = self._sat.predict_proba(text, stride=64, batch_size=self._batch_size)
        ends = {int(i) + 1 for i in np.flatnonzero(probabilities > self.threshold)}
        return ends, np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


class PunctuationSegmenter(CuttingSegmenter):
    """Ends a sentence at ``.!?`` before white space, and at the full-width marks of Japanese and Chinese anywhere.

    It knows no abbreviations: ``Dr. No`` gives two sentences.
    """

    name = "punctuation"

    def _find_ends(self, text: str) -> tuple[set[int], np.ndarray | None]:
        return {match.end() for match in _SENTENCE_END.finditer(text)}, None


class NewlineSegmenter(CuttingSegmenter):
    """One sentence a line, for text that is split already."""

    name = "newline"

    def __init__(self, *, max_length: int = MAX_LENGTH) -> None:
        super().__init__(max_length=max_length, newlines="line")

    def _find_ends(self, text: str) -> tuple[set[int], np.ndarray | None]:
        return set(), None


def create_segmenter(
    name: str | Path = DEFAULT_SEGMENTER,
    *,
    tokenizer: str | Path | None = None,
    device: str = "cpu",
    max_length: int = MAX_LENGTH,
    threshold: float | None = None,
    newlines: Newlines = "line",
) -> CuttingSegmenter:
    """
    :param name: ``punctuation``, ``newline``, or a SaT: a name of the hub, or a folder.
    :param tokenizer: As ``device`` and ``threshold``, of SaT: see :class:`SatSegmenter`.
    :raises ConfigError: An unknown name, or a value that is out of its range or that the segmenter does not have.
    :raises CheckpointError: The model or its tokenizer is not there, or damaged.
    """
    if name in ("punctuation", "newline"):
        given = [field for field, value in (("threshold", threshold), ("tokenizer", tokenizer)) if value is not None]
        if given:
            raise ConfigError(f'The segmenter "{name}" has no {" and no ".join(given)}; only SaT has.')
        if name == "punctuation":
            return PunctuationSegmenter(max_length=max_length, newlines=newlines)
        return NewlineSegmenter(max_length=max_length)
    if not Path(name).is_dir() and not _SAT_HUB_NAME.fullmatch(str(name)):
        known = ("punctuation", "newline", *SAT_NAMES)
        raise ConfigError(f"{unknown_name('segmenter', str(name), known)} The folder of a SaT model is one too.")
    return SatSegmenter(
        name, tokenizer=tokenizer, device=device, max_length=max_length, threshold=threshold, newlines=newlines
    )


def _load_sat(model: str | Path, tokenizer: str | Path | None) -> Any:
    from wtpsplit import SaT

    if tokenizer is None:
        is_beside = any((Path(model) / file).is_file() for file in _TOKENIZER_FILES)
        tokenizer = model if is_beside else _SAT_TOKENIZER
    try:
        return SaT(str(model), tokenizer_name_or_path=str(tokenizer))
    # A missing tokenizer is a TypeError inside transformers, a damaged file what its reader happens to raise.
    except Exception as ex:
        reason = str(ex).partition("\n")[0]
        raise CheckpointError(
            f'The SaT model "{model}" with tokenizer "{tokenizer}" cannot be loaded: {reason}\n'
            f"Without a network, give folders that hold both: config.json and model.safetensors of "
            f"segment-any-text/{Path(model).name}, and the tokenizer of {_SAT_TOKENIZER}."
        ) from ex


def _usual_threshold(name: str) -> float:
    """What wtpsplit takes for a model of this name."""
    if "-sm" in name:
        return 0.25
    return 0.01 if "no-limited-lookahead" in name else 0.025


def _in_steps(text: str, length: int) -> list[str]:
    return [text[i : i + length] for i in range(0, len(text), length)]
