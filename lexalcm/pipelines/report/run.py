"""Makes a report of a dataset: the page, and its pictures as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lexalcm import __version__
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.special_concepts import SpecialConcepts
from lexalcm.errors import ConfigError
from lexalcm.pipelines.report.compare import compare
from lexalcm.pipelines.report.config import ReportConfig
from lexalcm.pipelines.report.draw import CREATOR, Picture
from lexalcm.pipelines.report.figures import DatasetFigures, collect_figures
from lexalcm.pipelines.report.neighbours import TOO_CLOSE, nearest_examples, special_figures
from lexalcm.pipelines.report.page import render_page
from lexalcm.pipelines.report.pictures import comparing_pictures, embedding_pictures, text_pictures
from lexalcm.pipelines.report.plane import draw_plane
from lexalcm.pipelines.report.tables import facts, matches, notes, shown, side_by_side, summaries, tiles

_NAMES: Final = ("A", "B")
_ABOUT_SIZE: Final = 2048


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A dataset to show."""

    name: str
    """What it is called on the page."""

    dataset: ConceptParquetDataset

    made_by: Mapping[str, Any]
    """What its card tells of its making; empty without one."""

    @property
    def paths(self) -> list[str]:
        """Of its sources."""
        return [source.path for source in self.dataset.config.resolved_sources()]


@dataclass(frozen=True)
class Report:
    """A finished report, in memory."""

    html: str

    pictures: list[Picture]

    figures: DatasetFigures


def make_report(
    subject: Subject,
    config: ReportConfig,
    *,
    special_concepts: SpecialConcepts | None = None,
    other: Subject | None = None,
) -> Report:
    """Reads the data and draws.

    :param special_concepts: Shown among the sentences.
    :param other: A dataset to compare with, read by the same rules.
    :raises ConfigError: A field of ``config`` cannot be honoured.
    :raises DataError: Nothing can be shown, or a special concept does not fit.
    """
    config.check()
    figures = collect_figures(subject.dataset, config)
    bank = figures.embeddings.bank
    special = None if special_concepts is None else special_figures(special_concepts, bank)
    plane = draw_plane(bank, special, num_points=config.num_points, method=config.projection, seed=config.seed)
    of_text, of_embeddings = list(text_pictures(figures, config)), list(embedding_pictures(figures))
    compared = None if other is None else _compared(figures, other, config)
    norms = figures.embeddings.norms
    fields = {
        "creator": CREATOR,
        "version": __version__,
        "name": subject.name,
        "figures": figures,
        "tiles": list(tiles(figures)),
        "notes": [*notes(figures, subject.name), *(compared["notes"] if compared else [])],
        "facts": list(facts(figures, subject.paths, subject.made_by, config)),
        "summaries": list(summaries(figures)),
        "text_pictures": of_text,
        "embedding_pictures": of_embeddings,
        "plane": plane,
        "examples": nearest_examples(bank),
        "bank_size": len(bank.sentences),
        "special": special,
        "too_close": TOO_CLOSE,
        "median_norm": f"{norms.quantiles(0.5)[0]:.4g}",
        "comparison": compared,
        "first": [shown(document) for document in figures.first],
    }
    pictures = [*of_text, *of_embeddings, plane.picture, *(compared["pictures"] if compared else [])]
    return Report(render_page(fields, plane.figure), pictures, figures)


def write_report(report: Report, path: Path, png_dir: Path | None) -> None:
    """Writes the page, and each picture as ``NAME.png``. Files of an earlier report are replaced, others never.

    :raises ConfigError: A file of that name is there, and not of a report.
    """
    contents: dict[Path, Callable[[], bytes]] = {path: lambda: report.html.encode("utf-8", "backslashreplace")}
    if png_dir is not None:
        contents.update({png_dir / f"{picture.name}.png": picture.png for picture in report.pictures})
    for place in contents:
        _check_place(place)
    for place, content in contents.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.with_name(f".{place.name}.unfinished")
        try:
            aside.write_bytes(content())
            os.replace(aside, place)
        finally:
            aside.unlink(missing_ok=True)


def check_outputs(path: Path, png_dir: Path | None) -> None:
    """Tells before any work what :func:`write_report` would refuse in the end.

    :raises ConfigError: A folder, or a file that no report wrote, is where the page belongs, or a file at ``png_dir``.
    """
    _check_place(path)
    if png_dir is not None and png_dir.exists() and not png_dir.is_dir():
        raise ConfigError(f"`--png-dir` must be a folder, but {png_dir} is a file.")


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file.")
    if path.exists():
        with path.open("rb") as file:
            if CREATOR.encode() not in file.read(_ABOUT_SIZE):
                raise ConfigError(f"{path} is there already, and is not of a report. Remove it, or give another name.")


def _compared(figures: DatasetFigures, other: Subject, config: ReportConfig) -> dict[str, Any]:
    second = collect_figures(other.dataset, config)
    found = compare(_NAMES, figures, second, seed=config.seed)
    both = (figures, second)
    by_label: dict[str, list[tuple[str, list[str]]]] = {}
    for name, f in zip(_NAMES, both):
        for label, cells in summaries(f):
            by_label.setdefault(label, []).append((f"{name}: {label}", cells))
    strips = [] if found.strips is None else [found.strips]
    return {
        "name": other.name,
        "rows": list(side_by_side(both)),
        "summaries": [row for rows in by_label.values() for row in rows],
        "notes": list(notes(second, other.name)),
        "matches": list(matches(found)),
        "pictures": [*strips, *comparing_pictures(_NAMES, both)],
    }
