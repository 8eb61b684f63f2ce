"""Which documents must not be trained on, and why.

Shapes: R documents of a chunk, N vectors, C their width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from threading import Lock
from typing import Final

import numpy as np

from lexalcm.data.decode import Sentences, Vectors
from lexalcm.errors import DataError

BAD_ROW_KINDS: Final = {
    "null_embeddings": "the list of embeddings is null",
    "null_sentences": "the list of sentences is null",
    "null_sentence": "a null sentence",
    "null_vector": "a null",
    "other_width": "a vector that is not",
    "not_finite": "NaN or infinity",
    "zero_vector": "a zero vector",
    "no_embeddings": "text without embeddings",
    "counts_differ": "counts differ",
    "not_text": "text that is not UTF-8",
}
"""Names of kinds of bad rows, for metrics, and how a reason of each begins; the first that fits is meant."""

_SEEN_BEFORE_SHARE: Final = 1_000
_BLOCK_COMPONENTS: Final = 1 << 18
_HALF_INFINITY: Final = 0x7C00 << 1
_LARGEST_FLOAT32: Final = float(np.finfo(np.float32).max)


def bad_rows(vectors: Vectors, sentences: Sentences | None) -> dict[int, str]:
    """Returns the reason by row, counted from the start of the chunk, the first that applies."""
    reasons: dict[int, str] = {}

    def blame(rows: np.ndarray, reason: str) -> None:
        for row in rows.tolist():
            reasons.setdefault(row, reason)

    def blame_vectors(bad: np.ndarray, reason: str) -> None:
        which = np.flatnonzero(bad)
        # Empty documents share a start with their successor; the owner is the last with that start, and not empty.
        rows = np.searchsorted(vectors.starts, which, side="right") - 1
        for row, vector in zip(rows.tolist(), which.tolist()):
            reasons.setdefault(row, f"{reason} in sentence {vector - int(vectors.starts[row])}")

    blame(np.flatnonzero(vectors.null_rows), BAD_ROW_KINDS["null_embeddings"])
    blame_vectors(vectors.null_vectors, BAD_ROW_KINDS["null_vector"])
    usable = ~vectors.null_vectors
    if vectors.widths is not None:
        width = vectors.values.shape[1]
        blame_vectors((vectors.widths != width) & usable, f"{BAD_ROW_KINDS['other_width']} {width} wide")
        usable &= vectors.widths == width
    finite, nonzero = finite_and_nonzero(vectors.values)
    blame_vectors(~finite & usable, BAD_ROW_KINDS["not_finite"])
    blame_vectors(~nonzero & usable, BAD_ROW_KINDS["zero_vector"])
    if sentences is not None:
        _blame_text(reasons, vectors, sentences)
    return reasons


def _blame_text(reasons: dict[int, str], vectors: Vectors, sentences: Sentences) -> None:
    have_text = ~sentences.null_rows
    for row in np.flatnonzero(~have_text & (vectors.lengths > 0)).tolist():
        reasons.setdefault(row, BAD_ROW_KINDS["null_sentences"])
    for row in np.flatnonzero(have_text & (sentences.lengths > 0) & (vectors.lengths == 0)).tolist():
        reasons.setdefault(row, BAD_ROW_KINDS["no_embeddings"])
    for row in np.flatnonzero(have_text & (sentences.lengths != vectors.lengths)).tolist():
        reasons.setdefault(
            row,
            f"{BAD_ROW_KINDS['counts_differ']}: {sentences.lengths[row]} sentences "
            f"but {vectors.lengths[row]} embeddings",
        )
    nulls = np.zeros(0, np.int64)
    if sentences.values.null_count:
        nulls = np.flatnonzero(sentences.values.is_null().to_numpy(zero_copy_only=False))
    for which, kind in ((nulls, "null_sentence"), (sentences.not_text, "not_text")):
        rows = np.searchsorted(sentences.starts, which, side="right") - 1
        for row in rows.tolist():
            reasons.setdefault(row, BAD_ROW_KINDS[kind])


def finite_and_nonzero(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tells of each vector whether all its components are finite, in float32 too, and whether one of them is not zero.

    :param values: ``[N, C]``.
    :returns: bool ``[N]`` twice.
    """
    finite, nonzero = np.ones(len(values), dtype=bool), np.ones(len(values), dtype=bool)
    # Blocks stay in the processor's cache, which makes this several times as fast as decoding.
    step = max(1, _BLOCK_COMPONENTS // max(values.shape[1], 1))
    doubled = np.empty((min(step, len(values)), values.shape[1]), np.uint16) if values.dtype == np.float16 else None
    for start in range(0, len(values), step):
        block = values[start : start + step]
        stop = start + len(block)
        if doubled is not None:
            # The bits of a half without its sign order as magnitudes do; NaN and infinity come last.
            bits = np.left_shift(block.view(np.uint16), 1, out=doubled[: len(block)])
            largest = bits.max(axis=1, initial=0)
            finite[start:stop], nonzero[start:stop] = largest < _HALF_INFINITY, largest > 0
        else:
            finite[start:stop], nonzero[start:stop] = _finite_and_nonzero_block(block)
    return finite, nonzero


def _finite_and_nonzero_block(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        squares = np.einsum("nc,nc->n", block, block)
        finite, nonzero = squares <= _LARGEST_FLOAT32, squares > np.finfo(np.float32).tiny
        # Squares of large components overflow and those of tiny ones vanish: look again at the components themselves,
        # as a batch will hold them.
        for row in np.flatnonzero(~(finite & nonzero)).tolist():
            vector = block[row].astype(np.float32)
            finite[row], nonzero[row] = np.isfinite(vector).all(), vector.any()
    return finite, nonzero


def whole_chunk_has_other_width(vectors: Vectors) -> int | None:
    """Returns the width that all vectors share when it is not the expected one: then the file is wrong, not a row."""
    if vectors.widths is None or np.count_nonzero(vectors.lengths) < 2:
        return None
    widths = vectors.widths[~vectors.null_vectors]
    first = int(widths[0]) if len(widths) else vectors.values.shape[1]
    return first if first != vectors.values.shape[1] and (widths == first).all() else None


def in_column(reason: str, column: str) -> str:
    """Adds to a reason which of two columns is meant."""
    return f"{reason} (column `{column}`)"


def kinds_of(reasons: Iterable[str]) -> Counter[str]:
    """Counts reasons by the names of :data:`BAD_ROW_KINDS`."""
    return Counter(next(name for name, begin in BAD_ROW_KINDS.items() if why.startswith(begin)) for why in reasons)


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

    def summary(self) -> str:
        """Reasons and counts in one line, the most frequent first."""
        return ", ".join(f"{reason}: {count:,}" for reason, count in self.by_reason.most_common())

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
        self.by_reason.update(_kind(reason) for reason in reasons.values())
        if self.seen >= _SEEN_BEFORE_SHARE and self.num_bad > self._max_share * self.seen:
            raise DataError(
                f"{self.num_bad:,} of the first {self.seen:,} documents are bad ({self.summary()}), more than the "
                f"{self._max_share:.0%} that `max_bad_share` allows. The last was in {file}."
            )


def _kind(reason: str) -> str:
    """A reason without what differs from row to row."""
    return reason.split(" in sentence")[0].split(":")[0].split(" (column")[0]
