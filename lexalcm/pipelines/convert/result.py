"""What became of a source file."""

from __future__ import annotations

from dataclasses import dataclass, field

from lexalcm.errors import DataError


@dataclass(frozen=True)
class BadRow:
    """A row that was left out."""

    row_group: int

    row: int
    """Within its row group, from 0."""

    reason: str


@dataclass(frozen=True)
class Output:
    """A file written."""

    path: str
    """Below the output folder."""

    num_rows: int

    num_bytes: int


@dataclass
class FileResult:
    """What became of a source file."""

    file: str
    """Below the source."""

    num_rows: int = 0

    bad: list[BadRow] = field(default_factory=list)

    outputs: dict[str, Output] = field(default_factory=dict)
    """By split."""

    num_bytes: int = 0
    """Of the source file."""

    damaged: str | None = None
    """Why it could not be read; then nothing of it was written."""

    @property
    def num_kept(self) -> int:
        return 0 if self.damaged is not None else self.num_rows - len(self.bad)


class DamagedFileError(DataError):
    """A file that cannot be read to its end."""


def bad_row_error(path: str, row_group: int, row: int, reason: str) -> DataError:
    """What to tell of the first bad row where bad rows are errors."""
    return DataError(
        f"{path}: row group {row_group}, row {row}: {reason}.\n"
        f"Take --repair drop to leave such documents out and list them, or mend the source."
    )
