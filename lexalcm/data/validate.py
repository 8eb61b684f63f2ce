"""Which documents must not be trained on, and why.

Shapes: R documents of a chunk, N vectors, C their width.
"""

from __future__ import annotations

import warnings
from collections import Counter
from threading import Lock
from typing import Final

import numpy as np
import pyarrow.compute as pc

from lexalcm.data.decode import Sentences, Vectors
from lexalcm.data.discover import DataWarning
from lexalcm.errors import DataError

MAX_SEGMENT_CHARACTERS: Final = 250
_SEEN_BEFORE_SHARE: Final = 1_000
_MOST_DOCUMENT_HASHES: Final = 2_000_000


def bad_rows(vectors: Vectors, sentences: Sentences | None) -> dict[int, str]:
    """Returns the reason by row, counted from the start of the chunk, the first that applies."""
    reasons: dict[int, str] = {}

    def blame(rows: np.ndarray, reason: str) -> None:
        for row in rows.tolist():
            reasons.setdefault(row, reason)

    def blame_vectors(bad: np.ndarray, reason: str) -> None:
        if bad.any():
            which = np.flatnonzero(bad)
            rows = np.searchsorted(vectors.starts, which, side="right") - 1
            # Empty documents share a start with their successor; the owner is the last with that start, and not empty.
            for row, vector in zip(rows.tolist(), which.tolist()):
                reasons.setdefault(row, f"{reason} in sentence {vector - int(vectors.starts[row])}")

    blame(np.flatnonzero(vectors.null_rows), "the list of embeddings is null")
    blame_vectors(vectors.null_vectors, "a null")
    if vectors.widths is not None:
        width = vectors.values.shape[1]
        wrong = (vectors.widths != width) & ~vectors.null_vectors
        blame_vectors(wrong, f"a vector that is not {width} wide")
    finite, nonzero = _finite_and_nonzero(vectors.values)
    usable = ~vectors.null_vectors if vectors.widths is None else ~vectors.null_vectors & (vectors.widths == vectors.values.shape[1])
    blame_vectors(~finite & usable, "NaN or infinity")
    blame_vectors(~nonzero & usable, "a zero vector")
    if sentences is not None:
        have_text = ~sentences.null_rows
        blame(np.flatnonzero(~have_text & (vectors.lengths > 0)), "the list of sentences is null")
        blame(np.flatnonzero(have_text & (sentences.lengths > 0) & (vectors.lengths == 0)), "text without embeddings")
        differ = np.flatnonzero(have_text & (sentences.lengths != vectors.lengths))
        for row in differ.tolist():
            reasons.setdefault(row, f"{sentences.lengths[row]} sentences but {vectors.lengths[row]} embeddings")
        if sentences.values.null_count:
            nulls = np.flatnonzero(sentences.values.is_null().to_numpy(zero_copy_only=False))
            rows = np.searchsorted(sentences.starts, nulls, side="right") - 1
            blame(rows, "a null sentence")
    return reasons


def _finite_and_nonzero(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per vector: all components are finite; one of them is not zero. One pass in the common case."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Halves are summed in float32, where their squares can neither overflow nor vanish.
        squares = np.einsum("nc,nc->n", values, values, dtype=np.promote_types(values.dtype, np.float32))
    finite, nonzero = np.isfinite(squares), squares > 0.0
    # Squares of large components overflow and those of tiny ones vanish: look again at the components themselves.
    doubtful = np.flatnonzero(~finite)
    finite[doubtful] = np.isfinite(values[doubtful]).all(axis=1)
    nonzero[doubtful] = True
    doubtful = np.flatnonzero(~nonzero)
    nonzero[doubtful] = values[doubtful].any(axis=1)
    return finite, nonzero


def whole_chunk_has_other_width(vectors: Vectors) -> int | None:
    """Returns the width that all vectors share when it is not the expected one: then the file is wrong, not a row."""
    if vectors.widths is None or len(vectors.widths) == 0:
        return None
    first = int(vectors.widths[0])
    return first if first != vectors.values.shape[1] and (vectors.widths == first).all() else None


class BadRowCounter:
    """Counts skipped documents by reason, and stops when they are too many to be an accident."""

    def __init__(self, *, skip: bool, max_share: float) -> None:
        self._skip = skip
        self._max_share = max_share
        self.seen = 0
        self.by_reason: Counter[str] = Counter()
        self._lock = Lock()

    @property
    def num_bad(self) -> int:
        return sum(self.by_reason.values())

    def add(self, num_rows: int, reasons: dict[int, str], *, file: str, row_group: int, first_row: int) -> None:
        """
        :param reasons: By row of the chunk; ``first_row`` is the chunk's first row within its row group.
        :raises DataError: Bad rows are errors, or too many were skipped.
        """
        with self._lock:
            self._add(num_rows, reasons, file, row_group, first_row)

    def _add(self, num_rows: int, reasons: dict[int, str], file: str, row_group: int, first_row: int) -> None:
        self.seen += num_rows
        if not reasons:
            return
        row, reason = min(reasons.items())
        if not self._skip:
            more = f" {len(reasons) - 1} more of its rows are bad." if len(reasons) > 1 else ""
            raise DataError(
                f"{file}: row group {row_group}, row {first_row + row}: {reason}.{more}\n"
                f"Set `on_bad_rows: skip` (dataset.config_overrides) to leave such documents out and count them."
            )
        self.by_reason.update(reason.split(" in sentence")[0] for reason in reasons.values())
        if self.seen >= _SEEN_BEFORE_SHARE and self.num_bad > self._max_share * self.seen:
            listed = ", ".join(f"{reason}: {count}" for reason, count in self.by_reason.most_common(3))
            raise DataError(
                f"{self.num_bad:,} of the first {self.seen:,} documents are bad ({listed}), more than the "
                f"{self._max_share:.0%} that `max_bad_share` allows. The last was in {file}."
            )


class Watch:
    """Says once what can be used but looks like a mistake."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._said: set[str] = set()
        self._hashes: set[int] = set()
        self._documents = 0
        self._longest = 0

    def look(self, vectors: Vectors, sentences: Sentences | None, *, file: str) -> None:
        """Looks at a chunk that was read whole."""
        self._documents += len(vectors.lengths)
        self._longest = max(self._longest, int(vectors.lengths.max(initial=0)))
        values = vectors.values
        if len(values) and values.shape[1] > 1:
            same = (values[:, 0] == values[:, 1]) & (values[:, 0] == values[:, -1])
            flat = np.flatnonzero(same & (values[:, 0] != 0))
            if len(flat) and (values[flat] == values[flat, :1]).all(axis=1).any():
                self._say("constant", f"{file}: a vector has the same value in every component.")
        if len(self._hashes) < _MOST_DOCUMENT_HASHES and "duplicate" not in self._said:
            self._look_for_duplicates(vectors, file)
        if sentences is not None and len(sentences.values):
            lengths = pc.utf8_length(sentences.values.cast("string")).to_numpy(zero_copy_only=False)
            longest = int(np.nanmax(lengths))
            if longest > MAX_SEGMENT_CHARACTERS:
                self._say("long", f"{file}: a sentence has {longest} characters; SONAR is meant for at most {MAX_SEGMENT_CHARACTERS}.")
            blank = pc.utf8_trim_whitespace(sentences.values.cast("string"))
            if pc.any(pc.equal(blank, "")).as_py():
                self._say("blank", f"{file}: a sentence is empty or blank.")

    def _look_for_duplicates(self, vectors: Vectors, file: str) -> None:
        for start, length in zip(vectors.starts.tolist(), vectors.lengths.tolist()):
            if length == 0:
                continue
            key = hash(vectors.values[start : start + length].tobytes())
            if key in self._hashes:
                self._say("duplicate", f"{file}: a document is stored twice.")
                return
            self._hashes.add(key)

    def finish(self) -> None:
        """Called when every document has been seen."""
        if self._documents and self._longest <= 1:
            self._say("single", "no document has more than one sentence: there is nothing to predict.")

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"{self._where}: {text}", DataWarning, stacklevel=2)
