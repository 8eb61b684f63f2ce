"""From equal hashes to problems: documents stored twice, in two splits, or under one id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np

from lexalcm.data.discover import DataFile
from lexalcm.pipelines.verify.problems import Problem
from lexalcm.pipelines.verify.repeats import RepeatFinder
from lexalcm.pipelines.verify.rows import Looked


class RepeatedDocuments:
    """Compares documents by their vectors, by their text and by their ids. A context manager, for its files.

    Vectors are compared as stored: the same document in two float types is found by its text.
    """

    def __init__(self, files: Sequence[DataFile], sources: Sequence[str]) -> None:
        """
        :param files: As records number them.
        :param sources: The name of each file's source.
        """
        self._files = files
        self._sources = sources
        self._stack = ExitStack()
        self._documents, self._texts, self._ids = (self._stack.enter_context(RepeatFinder()) for _ in range(3))

    def add(self, looked: Looked) -> None:
        for finder, tables in (
            (self._documents, looked.documents),
            (self._texts, looked.texts),
            (self._ids, looked.ids),
        ):
            for table in tables:
                finder.add(table)

    def problems(self) -> Iterator[Problem]:
        """One a repetition, at the later place, with the first one's."""
        for group in self._documents.groups():
            for later in group[1:]:
                yield self._content(group[0], later, "duplicate", "the same vectors as")
        for group in self._texts.groups():
            # Those with the same vectors are told already.
            seen = {int(group["other"][0])}
            for later in group[1:]:
                if int(later["other"]) not in seen:
                    seen.add(int(later["other"]))
                    yield self._content(group[0], later, "duplicate_text", "the same text, but not the vectors, as")
        for group in self._ids.groups():
            for later in group[1:]:
                yield self._problem(group[0], later, "same_id", f"the same id as {self._place(group[0])}")

    def __enter__(self) -> RepeatedDocuments:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _content(self, first: np.void, later: np.void, kind: str, how: str) -> Problem:
        reason = f"{how} {self._place(first)}"
        if first["split"] >= 0 and later["split"] >= 0 and first["split"] != later["split"]:
            splits = [self._files[int(record["file"])].split for record in (later, first)]
            return self._problem(first, later, "two_splits", f"in {splits[0]}, and in {splits[1]}: {reason}")
        return self._problem(first, later, kind, reason)

    def _place(self, record: np.void) -> str:
        return f"{self._files[int(record['file'])].relative} row {int(record['row'])}"

    def _problem(self, first: np.void, later: np.void, kind: str, reason: str) -> Problem:
        index, row = int(later["file"]), int(later["row"])
        file = self._files[index]
        group = int(np.searchsorted(file.first_rows, row, side="right")) - 1
        return Problem(
            kind=kind,
            reason=reason,
            source=self._sources[index],
            file=file.relative,
            row_group=group,
            row_in_group=row - file.first_rows[group],
            row_in_file=row,
            other_file=self._files[int(first["file"])].relative,
            other_row=int(first["row"]),
        )
