"""What an evaluation found, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from lexalcm.evaluation.protocol import Figures

_COLUMNS: Final = {
    "cosine": "cosine",
    "mse": "MSE",
    "acc_at_1_unseen": "@1 unseen",
    "acc_at_10_unseen": "@10 unseen",
    "acc_at_1": "@1",
    "acc_at_10": "@10",
    "mrr": "MRR",
    "energy_score": "energy",
}
"""Figures shown, in order; the ones to rank by stand first after the two that the mean of all futures wins."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One predictor."""

    name: str

    figures: Figures | None
    """None: not available."""

    energy_score: float | None = None
    """Lower is better. None where it is not defined, as for a single sample."""

    note: str = ""
    """How the predictor was run, or why it is not available."""


@dataclass(frozen=True, kw_only=True)
class Report:
    model: str
    dataset: str
    split: str | None
    rows: tuple[Row, ...]

    settings: dict[str, Any] = field(default_factory=dict)
    """What the figures depend on beyond model and data: seed, sampler, passes, baseline data."""

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; a row that is not available is null, with its reason under ``not_available``."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "settings": self.settings,
            "rows": {row.name: _row_as_dict(row) for row in self.rows},
            "not_available": {row.name: row.note for row in self.rows if row.figures is None},
        }

    def to_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2)

    def table(self) -> str:
        """Plain text, one line a predictor."""
        scored = next((row.figures for row in self.rows if row.figures is not None), None)
        lines = [["", *_COLUMNS.values(), ""]]
        for row in self.rows:
            lines.append([row.name, *_cells(row), row.note])
            if row.figures is None:
                lines[-1][1] = "not available"
        if scored is not None:
            chance = {"acc_at_1": scored.chance_at_1, "acc_at_10": scored.chance_at_10}
            lines.append(["chance", *(f"{chance[key]:.4f}" if key in chance else "" for key in _COLUMNS), ""])
        widths = [
            max(len(line[i]) for line in lines if i != 1 or line[1] != "not available") for i in range(len(lines[0]))
        ]
        text = [_line(line, widths) for line in lines]
        head = f"{self.model} on {self.dataset}" + (f", split {self.split}" if self.split else "")
        if scored is not None:
            head += f": {scored.documents} documents, {scored.positions} positions"
            head += f", {scored.candidates_mean:.1f} candidates"
        return "\n".join([head, "", *text])


def _row_as_dict(row: Row) -> dict[str, Any] | None:
    if row.figures is None:
        return None
    return {**row.figures.as_dict(), "energy_score": row.energy_score, "note": row.note}


def _cells(row: Row) -> list[str]:
    if row.figures is None:
        return [""] * len(_COLUMNS)
    values = {**row.figures.as_dict(), "energy_score": row.energy_score}
    digits = {"mse": 5}
    return ["" if values[key] is None else f"{values[key]:.{digits.get(key, 4)}f}" for key in _COLUMNS]


def _line(cells: list[str], widths: list[int]) -> str:
    # A row without figures says so across the columns and keeps its note in line with the others.
    name, note = cells[0].ljust(widths[0]), cells[-1]
    if cells[1] == "not available":
        middle = cells[1].ljust(sum(widths[1:-1]) + 2 * (len(widths) - 3))
    else:
        middle = "  ".join(cell.rjust(width) for cell, width in zip(cells[1:-1], widths[1:-1]))
    return f"{name}  {middle}  {note}".rstrip()
