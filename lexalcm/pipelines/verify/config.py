"""What a check of a dataset looks at, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.data.watch import MAX_SEGMENT_CHARACTERS
from lexalcm.errors import ConfigError
from lexalcm.pipelines.launch_config import num_cores

_MOST_WORKERS = 64


def default_workers() -> int:
    """The cores that this process may use, at most 16: decoding is bound by memory from there on."""
    return min(16, num_cores())


@dataclass(kw_only=True)
class VerifyConfig:
    """One check."""

    data: ConceptParquetConfig
    """The dataset. Where it names no column of text or ids, the usual ones are looked for; its ``concept_dim`` is the
    width that vectors must have, by default the one that most of the data has."""

    needs_text: bool = True
    """A file without its column of sentences is an error; else text is checked where there is some."""

    split: str | None = None
    """Check this split alone; ``None`` takes all files."""

    max_length: int = MAX_SEGMENT_CHARACTERS
    """Characters of a sentence without the white space around it; longer ones are told."""

    num_workers: int = field(default_factory=default_workers)
    """Threads. Each holds a few dozen megabytes."""

    most_kept: int = 20
    """Problems of each kind that the report lists."""

    keep_all: bool = False
    """Whether the report can list every problem, from a temporary file."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        for name, option, least, most in (
            ("max_length", "--max-length", 1, None),
            ("num_workers", "--workers", 1, _MOST_WORKERS),
            ("most_kept", "--limit-listed", 0, None),
        ):
            value = getattr(self, name)
            if value < least or (most is not None and value > most):
                bound = f"at least {least}" if most is None else f"between {least} and {most}"
                raise ConfigError(f"`{option}` must be {bound}, but is {value}.")
