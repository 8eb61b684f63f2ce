"""Says once what can be used but looks like a mistake."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lexalcm.data.decode import Sentences, Vectors
from lexalcm.data.discover import DataWarning

MAX_SEGMENT_CHARACTERS: Final = 250
_MOST_REMEMBERED: Final = 1_000_000


class Watch:
    """Looks at documents that are read in file order. Each kind of finding is told once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._said: set[str] = set()
        self._remembered: dict[str, set[int]] = {}
        self._documents = 0
        self._longest = 0

    def look(self, vectors: Vectors, sentences: Sentences | None, ids: pa.Array | None, *, file: str) -> None:
        """Looks at a chunk that was read whole."""
        self._documents += len(vectors.lengths)
        self._longest = max(self._longest, int(vectors.lengths.max(initial=0)))
        self._look_for_constants(vectors, file)
        self._look_for_repeats(vectors, ids, file)
        if sentences is not None and len(sentences.values) and not len(sentences.not_text):
            self._look_at_text(sentences.values, file)

    def _look_for_constants(self, vectors: Vectors, file: str) -> None:
        values = vectors.values
        if not len(values) or values.shape[1] < 2:
            return
        # What lies in memory under a null means nothing.
        same = (values[:, 0] == values[:, 1]) & (values[:, 0] == values[:, -1]) & ~vectors.null_vectors
        flat = np.flatnonzero(same & (values[:, 0] != 0))
        if len(flat) and (values[flat] == values[flat, :1]).all(axis=1).any():
            self._say("constant", f"{file}: a vector has the same value in every component.")

    def _look_for_repeats(self, vectors: Vectors, ids: pa.Array | None, file: str) -> None:
        if "document" not in self._said:
            starts, lengths = vectors.starts, vectors.lengths
            contents = (vectors.values[s : s + n].tobytes() for s, n in zip(starts.tolist(), lengths.tolist()) if n)
            if self._repeats("document", contents):
                self._say("document", f"{file}: a document is stored twice.")
        if ids is None or "id" in self._said:
            return
        if self._repeats("id", _plain_ids(ids)):
            self._say("id", f"{file}: two documents have the same id.")

    def _repeats(self, kind: str, values: Iterable[bytes | str]) -> bool:
        """Hashes of the first million are kept: enough to notice, at a bounded cost."""
        seen = self._remembered.setdefault(kind, set())
        for value in values:
            key = hash(value)
            if key in seen:
                return True
            if len(seen) < _MOST_REMEMBERED:
                seen.add(key)
        return False

    def _look_at_text(self, sentences: pa.Array, file: str) -> None:
        text = sentences.cast(pa.large_string())
        longest = pc.max(pc.utf8_length(text)).as_py()
        if longest is not None and longest > MAX_SEGMENT_CHARACTERS:
            self._say(
                "long",
                f"{file}: a sentence has {longest} characters; SONAR is meant for at most {MAX_SEGMENT_CHARACTERS}.",
            )
        if pc.any(pc.equal(pc.utf8_trim_whitespace(text), "")).as_py():
            self._say("blank", f"{file}: a sentence is empty or blank.")

    def finish(self) -> None:
        """Called when every document has been seen."""
        if self._documents and self._longest <= 1:
            self._say("single", "no document has more than one sentence: there is nothing to predict.")

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            warnings.warn(f"{self._where}: {text}", DataWarning, stacklevel=2)


def _plain_ids(ids: pa.Array) -> Iterator[bytes]:
    """Ids as bytes: those that are text need not be UTF-8."""
    if pa.types.is_dictionary(ids.type):
        ids = ids.dictionary_decode()
    if pa.types.is_integer(ids.type):
        return (b"%d" % value for value in ids.to_pylist() if value is not None)
    return (value for value in ids.cast(pa.large_binary()).to_pylist() if value is not None)
