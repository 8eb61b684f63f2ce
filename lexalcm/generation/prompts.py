"""Prompts as users give them: text, sentences or concepts, each with an id, and a key that its noise depends on.

Shapes: T concepts of a prompt, C dimensions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from lexalcm.errors import DataError
from lexalcm.text.checks import has_half_character


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """One prompt as it stands in the input; nothing of it is checked yet."""

    where: str
    """Its place, for messages: ``prompts.jsonl:3``."""

    place: str
    """Its place within the input, which is its id where it has none."""

    id: str | None = None

    text: str | None = None

    sentences: tuple[str, ...] | None = None

    concepts: np.ndarray | None = None
    """Raw, ``[T, C]``, any float type."""

    lang: str | None = None


@dataclass(frozen=True, kw_only=True)
class InputPrompt:
    """A prompt that can be continued."""

    id: str

    index: int
    """Its number in the input, from 0."""

    where: str

    key: str
    """What its noise depends on, beside the seed: the id that the user gave; else what it says, and how many prompts
    before it say the same. So neither order nor batches change what comes out."""

    digest: str
    """Of what it says; a continuation that is kept must be of the same."""

    text: str | None = None
    """Still to be split into sentences."""

    sentences: tuple[str, ...] | None = None

    concepts: np.ndarray | None = None
    """Raw float32 ``[T, C]``; ``None``: still to be encoded."""

    lang: str | None = None


@dataclass
class PromptSummary:
    """What one look through all prompts told."""

    indices: dict[str, int] = field(default_factory=dict)
    """Each id's number in the input."""

    digests: dict[str, str] = field(default_factory=dict)
    """Each id's digest of what the prompt says."""

    langs: dict[str | None, str] = field(default_factory=dict)
    """The languages of prompts that must be encoded, ``None`` for those that name none, each with its first place."""

    all_langs: dict[str | None, str] = field(default_factory=dict)
    """The languages of all prompts."""

    concept_dim: int | None = None
    """Width of the concepts given; ``None`` where all prompts are text."""

    @property
    def has_text(self) -> bool:
        return bool(self.langs)


def text_prompt(text: str, *, lang: str | None = None) -> InputPrompt:
    """The prompt of a text given on the spot.

    :raises DataError: It is empty.
    """
    return next(number_prompts([PromptRow(where="The prompt", place="0", text=text, lang=lang)]))


def number_prompts(rows: Iterable[PromptRow]) -> Iterator[InputPrompt]:
    """Checks prompts one by one and gives each its id, number and key.

    :raises DataError: A prompt is empty, its concepts are not finite vectors, or its id stands twice.
    """
    places: dict[str, str] = {}
    said: Counter[str] = Counter()
    for index, row in enumerate(rows):
        concepts = _check_concepts(row)
        _check_text(row)
        name = row.place if row.id is None else row.id
        if name in places:
            raise DataError(
                f'{places[name]} and {row.where} have the same id "{name}", so their continuations could not be told '
                f"apart.\nGive each prompt an id of its own."
            )
        places[name] = row.where
        digest = _digest(row, concepts)
        key = row.id
        if key is None:
            key = f"{digest}:{said[digest]}"
            said[digest] += 1
        yield InputPrompt(
            id=name,
            index=index,
            where=row.where,
            key=key,
            digest=digest,
            text=row.text,
            sentences=row.sentences,
            concepts=concepts,
            lang=row.lang,
        )


def look_through(prompts: Iterable[InputPrompt]) -> PromptSummary:
    """Reads all prompts once, so that what is wrong with any is told before a model is loaded.

    :raises DataError: There is none, one cannot be used, or their concepts are of several widths.
    """
    summary = PromptSummary()
    first = ""
    for prompt in prompts:
        summary.indices[prompt.id] = prompt.index
        summary.digests[prompt.id] = prompt.digest
        summary.all_langs.setdefault(prompt.lang, prompt.where)
        if prompt.concepts is None:
            summary.langs.setdefault(prompt.lang, prompt.where)
            continue
        width = prompt.concepts.shape[1]
        if summary.concept_dim is None:
            summary.concept_dim, first = width, prompt.where
        elif summary.concept_dim != width:
            raise DataError(
                f"{prompt.where} has concepts of {width} dimensions, but {first} has some of {summary.concept_dim}."
            )
    if not summary.indices:
        raise DataError("There is no prompt in the input.")
    return summary


def left_to_do(prompts: Iterable[InputPrompt], done: Collection[str]) -> Iterator[InputPrompt]:
    """The prompts whose id is not in ``done``."""
    return (prompt for prompt in prompts if prompt.id not in done)


def _check_text(row: PromptRow) -> None:
    for text in (row.id, row.text, *(row.sentences or ())):
        if text is not None and has_half_character(text):
            raise DataError(f"{row.where} has half a character (a lone surrogate), and so is not Unicode text.")
    if row.concepts is None and row.sentences is None and not (row.text or "").strip():
        raise DataError(f"{row.where}{_named(row)} is empty: there is nothing to continue. Write at least a sentence.")
    if row.sentences is None:
        return
    if not row.sentences:
        raise DataError(f"{row.where}{_named(row)} is empty: it has no sentences.")
    if row.concepts is not None:
        if len(row.sentences) != len(row.concepts):
            raise DataError(
                f"{row.where}{_named(row)} has {len(row.sentences)} sentences but {len(row.concepts)} concepts."
            )
        return
    for number, sentence in enumerate(row.sentences):
        if not sentence.strip():
            raise DataError(f"{row.where}{_named(row)}: sentence {number} is empty. Leave it out.")


def _check_concepts(row: PromptRow) -> np.ndarray | None:
    if row.concepts is None:
        return None
    shape = row.concepts.shape
    if len(shape) > 0 and shape[0] == 0:
        raise DataError(f"{row.where}{_named(row)} is empty: it has no concepts.")
    if len(shape) != 2 or shape[1] == 0:
        raise DataError(f"{row.where}{_named(row)} must have concepts of the shape [T, C], but has {list(shape)}.")
    with np.errstate(over="ignore"):
        concepts = np.ascontiguousarray(row.concepts, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(concepts).all(axis=1))
    if len(bad):
        raise DataError(f"{row.where}{_named(row)}: concept {bad[0]} of {shape[0]} holds NaN or infinity.")
    return concepts


def _named(row: PromptRow) -> str:
    return "" if row.id is None else f' (id "{row.id}")'


def _digest(row: PromptRow, concepts: np.ndarray | None) -> str:
    if concepts is not None:
        said = concepts.astype("<f4").tobytes()
    else:
        # A separator that no sentence holds, so that other borders are another prompt.
        said = "\0".join([row.text or "", *(row.sentences or ())]).encode("utf-8", "surrogatepass")
    return hashlib.sha256(said).hexdigest()[:32]
