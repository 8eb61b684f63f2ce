"""What was found, counted, with the first of each kind kept and the whole list on disk if it is wanted."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lexalcm.pipelines.verify.kinds import KINDS, Severity


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One finding and its place. Numbers count from 0."""

    kind: str
    """A name of :data:`KINDS`."""

    reason: str

    source: str | None = None
    """The source's name, or its path where it has no files."""

    file: str | None = None
    """Below the source's root, with forward slashes."""

    row_group: int | None = None

    row_in_group: int | None = None

    row_in_file: int | None = None

    sentence: int | None = None
    """Within the document, or within its source or target."""

    column: str | None = None

    other_file: str | None = None
    """Where the first of two equal documents is."""

    other_row: int | None = None

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    @property
    def place(self) -> str:
        """As messages name it; the sentence stands in the reason."""
        if self.file is None:
            return self.source or ""
        parts = [] if self.row_group is None else [f"row group {self.row_group}"]
        if self.row_in_group is not None:
            parts.append(f"row {self.row_in_group} (row {self.row_in_file} of the file)")
        elif self.row_in_file is not None:
            parts.append(f"row {self.row_in_file} of the file")
        return f"{self.file}: {', '.join(parts)}" if parts else self.file

    def to_json(self) -> str:
        """One line, with a null for what does not apply."""
        return json.dumps({"severity": self.severity, **asdict(self)})


class Findings:
    """Takes in problems, in memory that does not grow with their number."""

    def __init__(self, *, most_kept: int, keep_all: bool) -> None:
        """
        :param most_kept: The first of each kind that stay in memory.
        :param keep_all: Whether all are written to a temporary file, for :meth:`all_lines`.
        """
        self._most_kept = most_kept
        self._spool: Any = tempfile.TemporaryFile("w+", encoding="utf-8") if keep_all else None
        self.counts: Counter[str] = Counter()
        self.first: defaultdict[str, list[Problem]] = defaultdict(list)
        self.num_bad_rows = 0
        """Documents with an error of their own."""

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.counts[problem.kind] += 1
            self.num_bad_rows += problem.severity == "error" and problem.row_in_file is not None
            if len(self.first[problem.kind]) < self._most_kept:
                self.first[problem.kind].append(problem)
            if self._spool is not None:
                self._spool.write(problem.to_json() + "\n")

    def count(self, severity: Severity) -> int:
        """How many problems are so grave."""
        return sum(count for kind, count in self.counts.items() if KINDS[kind].severity == severity)

    def all_lines(self) -> Iterator[str]:
        """Every problem as one line of JSON, in the order they were found."""
        assert self._spool is not None, "the whole list was not asked for"
        self._spool.seek(0)
        return (line.rstrip("\n") for line in self._spool)
