"""Which split each row goes to, and which folder that is.

Shapes: R rows (documents) of a chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import Sentences, Vectors
from lexalcm.data.discover import same_split
from lexalcm.data.split_by_id import split_of
from lexalcm.errors import DataError

_FOLDERS: Final = {"train": "Train", "validation": "Val", "test": "Test"}


@dataclass(frozen=True)
class SplitRule:
    """How the split of a row is known."""

    kind: Literal["path", "column", "hash"]

    column: str | None = None
    """Of split names, or of ids; without one, a hash is of the document's content."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """By split, where it is drawn by hash."""

    seed: int = 0

    def describe(self) -> str:
        """One line for people."""
        if self.kind == "path":
            return "as the source's paths say"
        if self.kind == "column":
            return f"as the source's column `{self.column}` says, which is left out"
        what = f"column `{self.column}`" if self.column else "sentences (of the vectors where there is no text)"
        shares = ", ".join(f"{split} {share:.4g}" for split, share in self.shares.items())
        return f"by hash of the {what}, seed {self.seed}: {shares}"

    def settings(self) -> dict[str, Any]:
        """Plain values, to compare runs by."""
        return {"split": self.kind, "split_by": self.column, "shares": dict(self.shares), "seed": self.seed}


def known_split(split: str, layout: str) -> str:
    """The one name of a split that has several: ``val`` and ``validation`` share a folder of LexaLCM's layout."""
    if layout == "hive":
        return split
    return next((known for known in _FOLDERS if same_split(known, split)), split)


def folder_of(split: str, layout: str, *, where: str) -> str:
    """Returns the folder of a split, below the output.

    :param where: What names the split, for messages.
    :raises DataError: The layout has none.
    """
    if layout == "hive":
        if not split:
            raise DataError(f"{where}: the name of a split is empty.")
        return f"split={quote(split, safe=' ')}"
    known = known_split(split, layout)
    if known in _FOLDERS:
        return _FOLDERS[known]
    raise DataError(
        f"{where}: the split `{split}` has no folder in LexaLCM's layout, which knows train, validation and test.\n"
        f"Take --layout hive, which knows any, or --split-column none to draw splits anew."
    )


def splits_by_column(names: pa.ChunkedArray, rows: np.ndarray) -> list[tuple[int, str | None]]:
    """The split that a column names, of each of the rows."""
    plain = names.cast(pa.large_string()).take(pa.array(rows))
    return list(zip(rows.tolist(), plain.to_pylist()))


def splits_by_hash(
    rule: SplitRule, ids: pa.ChunkedArray | None, vectors: Vectors, sentences: Sentences | None, rows: np.ndarray
) -> list[tuple[int, str | None]]:
    """Draws the split of each of the rows by its id, or where it has none by its content."""
    known = [None] * len(rows) if ids is None else ids.take(pa.array(rows)).to_pylist()
    content: _Content | None = None
    drawn: list[tuple[int, str | None]] = []
    for row, name in zip(rows.tolist(), known):
        if name is None:
            content = content or _Content(vectors, sentences)
            name = content.digest(row)
        drawn.append((row, split_of(str(name), rule.shares, rule.seed)))
    return drawn


class _Content:
    """Names documents by what they say, so that two copies of one fall into the same split."""

    def __init__(self, vectors: Vectors, sentences: Sentences | None) -> None:
        self._vectors = vectors
        self._sentences = sentences
        if sentences is not None:
            text = sentences.values.cast(pa.large_string())
            _, offsets, data = text.buffers()
            self._offsets = np.zeros(1, np.int64)
            if len(text):
                self._offsets = np.frombuffer(offsets, np.int64, count=len(text) + 1, offset=text.offset * 8)
            self._bytes = memoryview(data) if data is not None else memoryview(b"")
            self._sizes = np.diff(self._offsets)

    def digest(self, row: int) -> str:
        """A hash of the sentences, or of the vectors where there is no text."""
        if self._sentences is None:
            start, length = int(self._vectors.starts[row]), int(self._vectors.lengths[row])
            return hashlib.blake2b(self._vectors.values[start : start + length].tobytes(), digest_size=16).hexdigest()
        start = int(self._sentences.starts[row])
        stop = start + int(self._sentences.lengths[row])
        # Lengths too, or ["ab", "c"] and ["a", "bc"] would be one.
        digest = hashlib.blake2b(self._sizes[start:stop].tobytes(), digest_size=16)
        digest.update(self._bytes[int(self._offsets[start]) : int(self._offsets[stop])])
        return digest.hexdigest()
