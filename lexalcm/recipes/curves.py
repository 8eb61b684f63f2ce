"""The loss curve of a run, from the metric files that fairseq2 writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Reads a ``metrics/*.jsonl`` file, one entry a step: after a resume steps stand there twice, and the last line
    counts."""
    by_step: dict[int, dict[str, Any]] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            by_step[int(entry["Step"])] = entry
    return [by_step[step] for step in sorted(by_step)]


def plot_losses(train: list[dict[str, Any]], valid: list[dict[str, Any]], file: Path) -> None:
    """Draws training and validation loss over steps as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for entries, label, style in ((train, "training", "-"), (valid, "validation", "o-")):
        if entries:
            axes.plot([e["Step"] for e in entries], [e["Loss"] for e in entries], style, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (mean squared error, normalised space)")
    axes.set_yscale("log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
