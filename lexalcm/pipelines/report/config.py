"""What a report is asked to show: configuration, validated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from lexalcm.errors import ConfigError, unknown_name

PROJECTIONS: Final = ("pca", "tsne")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How much is looked at, and how it is shown."""

    sample: float | int = 1000
    """Documents whose embeddings are read: a share of all (float), or so many (int)."""

    split: str | None = None
    """Only this split; ``None`` for all."""

    seed: int = 0
    """Of the sample."""

    num_points: int = 2000
    """Sentences in the two-dimensional picture."""

    projection: Literal["pca", "tsne"] = "pca"
    """``pca``: the two directions of most variance; ``tsne``: keeps neighbours together, distances mean little."""

    max_characters: int = 250
    """The cap on a sentence that was meant when it was cut; longer ones are counted."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        if self.sample <= 0 or (isinstance(self.sample, float) and not self.sample <= 1.0):
            raise ConfigError(f"`--sample` must be a share above 0 and up to 1.0, or documents, but is {self.sample}.")
        if self.num_points < 10:
            raise ConfigError(f"`--points` must be at least 10, but is {self.num_points}.")
        if self.projection not in PROJECTIONS:
            raise ConfigError(f"`--projection`: {unknown_name('projection', self.projection, PROJECTIONS)}")
        if self.max_characters < 1:
            raise ConfigError(f"`--max-length` must be at least 1, but is {self.max_characters}.")
        if self.seed < 0:
            raise ConfigError(f"`--seed` must be at least 0, but is {self.seed}.")

    def with_split(self, split: str | None) -> ReportConfig:
        """The same for another split."""
        return replace(self, split=split)

    def num_documents(self, num_rows: int) -> int:
        """How many of so many documents the sample has, at least one."""
        share = isinstance(self.sample, float)
        return max(1, min(num_rows, round(self.sample * num_rows) if share else int(self.sample)))


def parse_sample(text: str) -> float | int:
    """A share with a point (``0.1``, ``1.0``) or in percent (``10%``), or a number of documents (``500``).

    :raises ConfigError: None of these, or ``1``, which may mean one document or all.
    """
    plain = text.strip()
    if plain == "1":
        raise ConfigError("`--sample 1` may mean one document or all of them; write 1.0 for all.")
    try:
        if plain.isdecimal():
            return int(plain)
        return float(plain[:-1]) / 100.0 if plain.endswith("%") else float(plain)
    except ValueError:
        raise ConfigError(f"`--sample` must be a share like 0.1 or a number like 500, but is {text!r}.") from None
