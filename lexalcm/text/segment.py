"""Which segmenters there are: SaT, rules, punctuation, lines.

What a segmenter gives depends on the text, its language and the options alone, never on the texts beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.text.cutting import MAX_LENGTH, CuttingSegmenter, Ends, Newlines
from lexalcm.text.rules import RulesSegmenter
from lexalcm.text.sat import DEFAULT_SAT, SAT_NAME, SatSegmenter
from lexalcm.text.sat_model import Backend

SAT_NAMES: Final = tuple(f"sat-{layers}l{kind}" for layers in (1, 3, 6, 9, 12) for kind in ("", "-sm"))
DEFAULT_SEGMENTER: Final = DEFAULT_SAT
WITHOUT_MODEL: Final = ("rules", "punctuation", "newline")

_CLOSING: Final = "[\"')\\]}\u00bb\u2019\u201d\u300d\u300f\uff09]*"
_SENTENCE_END: Final = re.compile(rf"[.!?\u2026]+{_CLOSING}(?=\s|$)|[\u3002\uff01\uff1f]+{_CLOSING}")


class PunctuationSegmenter(CuttingSegmenter):
    """Ends a sentence at ``.!?`` before white space, and at the full-width marks of Japanese and Chinese anywhere.

    It knows no abbreviations: ``Dr. No`` gives two sentences.
    """

    name = "punctuation"
    kind = "punctuation"

    def _find_ends(self, texts: Sequence[str], langs: Sequence[str | None]) -> Iterator[Ends]:
        for text in texts:
            yield {match.end() for match in _SENTENCE_END.finditer(text)}, None


class NewlineSegmenter(CuttingSegmenter):
    """One sentence a line, for text that is split already."""

    name = "newline"
    kind = "newline"

    def __init__(self, *, max_length: int = MAX_LENGTH) -> None:
        super().__init__(max_length=max_length, newlines="line")

    def _find_ends(self, texts: Sequence[str], langs: Sequence[str | None]) -> Iterator[Ends]:
        for _ in texts:
            yield set(), None


def check_segmenter(
    name: str | Path = DEFAULT_SEGMENTER,
    *,
    tokenizer: str | Path | None = None,
    threshold: float | None = None,
    backend: Backend = "torch",
    batch_size: int | None = None,
) -> None:
    """What can be told of :func:`create_segmenter` without loading a model; raises the same errors."""
    if name in WITHOUT_MODEL:
        options = {"threshold": threshold, "tokenizer": tokenizer, "batch_size": batch_size}
        options["backend"] = None if backend == "torch" else backend
        if given := [field for field, value in options.items() if value is not None]:
            raise ConfigError(f'The segmenter "{name}" has no {" and no ".join(given)}; only SaT has.')
    elif not Path(name).is_dir() and not SAT_NAME.fullmatch(str(name)):
        known = (*WITHOUT_MODEL, *SAT_NAMES)
        raise ConfigError(f"{unknown_name('segmenter', str(name), known)} The folder of a SaT model is one too.")


def create_segmenter(
    name: str | Path = DEFAULT_SEGMENTER,
    *,
    tokenizer: str | Path | None = None,
    device: str = "cpu",
    max_length: int = MAX_LENGTH,
    threshold: float | None = None,
    newlines: Newlines = "line",
    backend: Backend = "torch",
    batch_size: int | None = None,
) -> CuttingSegmenter:
    """
    :param name: ``rules``, ``punctuation``, ``newline``, or a SaT: a name of the hub, or a folder.
    :param tokenizer: As ``device``, ``threshold``, ``backend`` and ``batch_size``, of SaT: see :class:`SatSegmenter`.
        Whatever the device, the other segmenters work on the CPU.
    :raises ConfigError: An unknown name, or a value that is out of its range or that the segmenter does not have.
    :raises CheckpointError: The model or its tokenizer is not there, or damaged.
    """
    check_segmenter(name, tokenizer=tokenizer, threshold=threshold, backend=backend, batch_size=batch_size)
    if name in WITHOUT_MODEL:
        if name == "newline":
            return NewlineSegmenter(max_length=max_length)
        kls = RulesSegmenter if name == "rules" else PunctuationSegmenter
        return kls(max_length=max_length, newlines=newlines)
    return SatSegmenter(
        name,
        tokenizer=tokenizer,
        device=device,
        max_length=max_length,
        threshold=threshold,
        newlines=newlines,
        backend=backend,
        batch_size=batch_size,
    )
