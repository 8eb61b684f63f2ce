"""The tables of a report: labels and values as text, ready for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lexalcm.pipelines.report.bank import shortened
from lexalcm.pipelines.report.compare import Comparison
from lexalcm.pipelines.report.config import ReportConfig
from lexalcm.pipelines.report.figures import DatasetFigures
from lexalcm.pipelines.report.pictures import sentences_of
from lexalcm.pipelines.report.sample import SampledDocument
from lexalcm.pipelines.report.tally import Tally

_SENTENCES_SHOWN: Final = 12


def tiles(figures: DatasetFigures) -> Iterator[tuple[str, str]]:
    """The numbers on top."""
    found = figures.embeddings
    yield "documents", f"{figures.num_rows:,}"
    yield "of them in the sample", f"{found.num_documents:,}"
    yield "sentences in the sample", f"{found.num_sentences:,}"
    yield "dimensions", f"{figures.concept_dim:,}"
    langs = len(figures.lengths.langs)
    yield ("language" if langs == 1 else "languages"), f"{langs:,}"


def notes(figures: DatasetFigures, name: str) -> Iterator[str]:
    """What somebody should know before the pictures."""
    counter = figures.notes.counter
    if counter.num_bad:
        yield (
            f"{counter.num_bad:,} of {counter.seen:,} documents looked at are bad and left out of the pictures of "
            f"embeddings ({counter.summary()}). `fairseq2 lcm verify {name}` lists them."
        )
    if figures.notes.unreadable:
        more = f" {len(figures.notes.unreadable) - 1} more like it." if len(figures.notes.unreadable) > 1 else ""
        yield f"Not everything could be read: {figures.notes.unreadable[0]}{more}"
    if not len(figures.lengths.characters):
        yield "The data have no column of sentences, so that there is no text to show beside the embeddings."


def facts(
    figures: DatasetFigures, paths: Sequence[str], made_by: Mapping[str, Any], config: ReportConfig
) -> Iterator[tuple[str, str]]:
    """
    :param paths: Of the sources.
    :param made_by: What the dataset's card recorded, keys within keys as ``a.b``.
    """
    yield "path", ", ".join(paths)
    yield "files", f"{figures.num_files:,}, {figures.num_bytes / 1e6:,.1f} MB"
    yield "documents", f"{figures.num_rows:,}" + (f" of the split {config.split}" if config.split else "")
    for split, count in sorted(figures.splits.items(), key=lambda item: -item[1]):
        yield f"split {split}", f"{count:,}"
    if figures.lengths.num_documents < figures.num_rows:
        yield "lengths of text", f"of {figures.lengths.num_documents:,} documents"
    yield "sample", f"{figures.embeddings.num_documents:,} documents, seed {config.seed}"
    for label, value in _flat(made_by):
        yield label, value


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", shortened(_told(value), 200)


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def summaries(figures: DatasetFigures) -> Iterator[tuple[str, list[str]]]:
    """Number, least, quartiles, greatest and mean of whatever was counted."""
    found = figures.embeddings
    tallies: dict[str, Tally] = {
        "sentences a document": sentences_of(figures),
        "characters a sentence": figures.lengths.characters,
        "characters a document": figures.lengths.document_characters,
        "norm of an embedding": found.norms,
        "cosine of neighbours": found.neighbour_cosines,
        "cosine of random pairs": found.random_cosines,
    }
    for label, tally in tallies.items():
        if (s := tally.summary()) is not None:
            values = (s.minimum, s.lower, s.median, s.upper, s.maximum, s.mean)
            yield label, [f"{s.count:,}", *map(_number, values)]


def _number(value: float) -> str:
    if value == int(value) and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def shown(document: SampledDocument) -> dict[str, Any]:
    """A document as the page shows it, with its first sentences."""
    sentences = document.sentences()
    length = len(document.concepts)
    shown = [shortened(sentence) for sentence in (sentences or [])[:_SENTENCES_SHOWN]]
    return {
        "title": document.id or document.place,
        "about": f"{document.place}, {document.lang}, {length:,} sentence{'' if length == 1 else 's'}",
        "sentences": shown,
        "more": length - len(shown) if sentences is not None else 0,
    }


def side_by_side(both: tuple[DatasetFigures, DatasetFigures]) -> Iterator[tuple[str, str, str]]:
    """Facts of two datasets in two columns."""

    def row(label: str, values: Sequence[object]) -> tuple[str, str, str]:
        return label, str(values[0]), str(values[1])

    yield row("files", [f"{f.num_files:,}" for f in both])
    yield row("megabytes", [f"{f.num_bytes / 1e6:,.1f}" for f in both])
    yield row("documents", [f"{f.num_rows:,}" for f in both])
    for split in sorted({split for f in both for split in f.splits}):
        yield row(f"split {split}", [f"{f.splits.get(split, 0):,}" for f in both])
    yield row("dimensions", [f.concept_dim for f in both])
    yield row("bad documents in the sample", [f"{f.notes.counter.num_bad:,} of {f.notes.counter.seen:,}" for f in both])
    for column in dict.fromkeys([*both[0].columns, *both[1].columns]):
        yield row(f"column {column}", [f.columns.get(column, "-") for f in both])


def matches(found: Comparison) -> Iterator[tuple[str, str]]:
    """What became of the first dataset's documents in the second."""
    if found.matched_by is None:
        yield "matched", "no: they have no ids to tell documents by, and not the same number of rows"
        return
    yield "matched by", found.matched_by
    yield "documents looked for", f"{found.num_looked_for:,}"
    yield "found in B", f"{found.num_found:,}"
    yield "with another number of sentences", f"{found.num_other_length:,}"
    yield "without any difference", f"{found.num_identical:,}"
    if found.largest_difference is not None:
        where = f", in {found.largest_in}" if found.largest_difference else ""
        yield (
            "largest absolute difference",
            f"{found.largest_difference:.3g} over {found.num_sentences:,} embeddings{where}",
        )
