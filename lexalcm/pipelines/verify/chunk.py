"""What is wrong with the documents of one chunk, and the hashes that tell equal ones.

Shapes: R documents, N vectors or sentences, C the vectors' width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexalcm.data.decode import Sentences, Vectors
from lexalcm.data.validate import bad_rows, in_column, kinds_of
from lexalcm.pipelines.verify.hashes import hashes_of_text, hashes_of_vectors, hashes_together

NEAR_CONSTANT: Final = 0.01
"""A vector is near-constant when its largest and smallest component differ by at most this share of the largest
magnitude; below 16 components, where that happens by chance, when all are the same."""

_FEW_COMPONENTS: Final = 16
_PEEKED_COMPONENTS: Final = 8
_OF_TEXT: Final = ("null_sentences", "null_sentence", "not_text")
_OF_BOTH: Final = ("no_embeddings", "counts_differ")
_SENTENCE: Final = re.compile(r" in sentence (\d+)")


@dataclass(frozen=True)
class DecodedSide:
    """One embedding column of a chunk and its text, as far as they can be read."""

    embedding_column: str | None

    text_column: str | None

    vectors: Vectors | None

    sentences: Sentences | None


@dataclass(frozen=True)
class Found:
    """A finding in one row of a chunk."""

    row: int

    kind: str

    reason: str

    sentence: int | None

    column: str | None


@dataclass(frozen=True)
class Hashes:
    """Of the documents that are whole and not empty."""

    rows: np.ndarray
    """int64: rows of the chunk."""

    vectors: list[bytes]

    texts: list[bytes] | None
    """``None`` where there is no text."""


def look_at(sides: Sequence[DecodedSide], kept: np.ndarray, *, max_length: int) -> tuple[list[Found], Hashes | None]:
    """Checks a chunk.

    :param kept: bool ``[R]``: the rows that filters let pass.
    :returns: What was found, by row, one of a kind a row and side; of errors a row's first. Hashes, where all sides
        have vectors.
    """
    found: dict[int, Found] = {}
    for side in sides:
        if side.vectors is not None:
            for row, reason in bad_rows(side.vectors, side.sentences).items():
                if kept[row]:
                    found.setdefault(row, _error(row, reason, side, is_one_of_two=len(sides) > 1))
    good = kept.copy()
    good[list(found)] = False
    warned: list[Found] = []
    for side in sides:
        if side.vectors is not None:
            warned += _near_constant(side, good)
        if side.sentences is not None:
            warned += _look_at_text(side, kept, max_length)
    result = sorted([*found.values(), *warned], key=lambda f: f.row)
    return result, _hashes(sides, good)


def _error(row: int, reason: str, side: DecodedSide, *, is_one_of_two: bool) -> Found:
    (kind,) = kinds_of([reason])
    match = _SENTENCE.search(reason)
    sentence = int(match[1]) if match else None
    if kind in ("null_sentence", "not_text"):
        assert side.sentences is not None
        sentence = _first_bad_sentence(side.sentences, row, kind)
        reason = f"{reason}: sentence {sentence}"
    column = None if kind in _OF_BOTH else side.text_column if kind in _OF_TEXT else side.embedding_column
    if is_one_of_two:
        reason = in_column(reason, str(column or side.embedding_column))
    return Found(row, kind, reason, sentence, column)


def _first_bad_sentence(sentences: Sentences, row: int, kind: str) -> int:
    start = int(sentences.starts[row])
    if kind == "not_text":
        return int(sentences.not_text[sentences.not_text >= start][0]) - start
    nulls = sentences.values.slice(start, int(sentences.lengths[row])).is_null().to_numpy(zero_copy_only=False)
    return int(nulls.argmax())


def _near_constant(side: DecodedSide, good: np.ndarray) -> list[Found]:
    assert side.vectors is not None
    values = side.vectors.values
    if not len(values) or values.shape[1] < 2:
        return []
    share = NEAR_CONSTANT if values.shape[1] >= _FEW_COMPONENTS else 0.0
    # The first few components, which lie together, rule out nearly all vectors at a small part of the cost.
    which = np.flatnonzero(_is_near_constant(values[:, :_PEEKED_COMPONENTS], share))
    which = which[_is_near_constant(values[which], share)]
    reason = f"components that all lie within {share:.0%} of each other in sentence"
    return _by_row(side.vectors.starts, which, good, "near_constant", reason, side.embedding_column)


def _is_near_constant(values: np.ndarray, share: float) -> np.ndarray:
    """bool ``[N]`` of ``[N, C]``; zero vectors and those with NaN are not."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = values.astype(np.float32)
        low, high = values.min(axis=1), values.max(axis=1)
        largest = np.maximum(np.abs(low), np.abs(high))
        return (high - low <= share * largest) & (largest > 0) & np.isfinite(largest)


def _look_at_text(side: DecodedSide, kept: np.ndarray, max_length: int) -> list[Found]:
    assert side.sentences is not None
    texts, places = side.sentences.values, None
    if len(side.sentences.not_text):
        places = np.setdiff1d(np.arange(len(texts)), side.sentences.not_text)
        texts = texts.take(pa.array(places))
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.large_string()))
    lengths = pc.fill_null(pc.utf8_length(trimmed), 1).to_numpy(zero_copy_only=False)
    found = []
    for kind, which in (("long_sentence", lengths > max_length), ("blank_sentence", lengths == 0)):
        indices = np.flatnonzero(which)
        longest = int(lengths.max(initial=0)) if len(indices) else 0
        reason = (
            f"more than {max_length} characters (up to {longest}) in sentence"
            if kind == "long_sentence"
            else "nothing but white space in sentence"
        )
        indices = indices if places is None else places[indices]
        found += _by_row(side.sentences.starts, indices, kept, kind, reason, side.text_column)
    return found


def _by_row(
    starts: np.ndarray, which: np.ndarray, kept: np.ndarray, kind: str, reason: str, column: str | None
) -> list[Found]:
    """One finding a row, for its first sentence, with the number of others."""
    if not len(which):
        return []
    # Empty documents share a start with their successor; the owner is the last with that start, and not empty.
    owners = np.searchsorted(starts, which, side="right") - 1
    rows, first, counts = np.unique(owners, return_index=True, return_counts=True)
    found = []
    for row, index, count in zip(rows.tolist(), first.tolist(), counts.tolist()):
        if not kept[row]:
            continue
        sentence = int(which[index] - starts[row])
        more = f" and {count - 1} more" if count > 1 else ""
        found.append(Found(row, kind, f"{reason} {sentence}{more}", sentence, column))
    return found


def _hashes(sides: Sequence[DecodedSide], good: np.ndarray) -> Hashes | None:
    vectors = [side.vectors for side in sides if side.vectors is not None]
    if len(vectors) < len(sides):
        return None
    rows = np.flatnonzero(good & (sum(v.lengths for v in vectors) > 0))
    of_vectors = hashes_together(*(hashes_of_vectors(v, rows) for v in vectors))
    sentences = [side.sentences for side in sides if side.sentences is not None]
    if len(sentences) < len(sides) or not len(rows):
        return Hashes(rows, of_vectors, None)
    return Hashes(rows, of_vectors, hashes_together(*(hashes_of_text(s, rows) for s in sentences)))
