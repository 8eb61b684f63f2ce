"""The pictures of one dataset, in the order of the page, each with what to look for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lexalcm.pipelines.report.columns import UNKNOWN
from lexalcm.pipelines.report.config import ReportConfig
from lexalcm.pipelines.report.draw import WIDE, Picture, bars, columns, curves, histogram, picture
from lexalcm.pipelines.report.figures import DatasetFigures
from lexalcm.pipelines.report.lengths import Lengths
from lexalcm.pipelines.report.tally import Tally

_MOST_MONTHS: Final = 48


def text_pictures(figures: DatasetFigures, config: ReportConfig) -> Iterator[Picture]:
    """Lengths, languages, splits and dates, as far as the data have them."""
    lengths = figures.lengths
    yield picture(
        "sentences_a_document",
        "Sentences a document",
        "Training cuts documents into windows of max_seq_len (128): the part beyond is read as a new start. Documents "
        "of one sentence teach nothing about what follows. The last bar holds all that is longer.",
        histogram({"documents": sentences_of(figures)}, "sentences"),
    )
    if len(lengths.characters):
        cap = config.max_characters
        over = lengths.characters.share_above(cap)
        told = "none is longer" if over == 0.0 else f"{over:.2%} are longer"
        yield picture(
            "characters_a_sentence",
            "Characters a sentence",
            f"The cap is {cap}: {told}. A pile-up just below it means text without boundaries to cut at; one near 0, "
            f"debris such as lone numbers.",
            histogram({"sentences": lengths.characters}, "characters", mark=(cap, f"cap {cap}")),
        )
    if len(lengths.document_characters):
        yield picture(
            "characters_a_document",
            "Characters a document",
            "A spike at one length is a template or a cut of the source. The last bar holds all that is longer.",
            histogram({"documents": lengths.document_characters}, "characters"),
        )
    if set(lengths.langs) - {UNKNOWN}:
        yield picture(
            "languages",
            "Languages",
            f"Documents by language. Those without one, {UNKNOWN}, were encoded by a rule and not by what they are.",
            bars({"documents": lengths.langs}),
        )
    if figures.splits:
        yield picture(
            "splits",
            "Splits",
            "Documents by split. A few hundred to validate on are enough; none means that training has to hold some "
            "out.",
            bars({"documents": figures.splits}),
        )
    if lengths.months:
        labels, counts, unit = dates_of(lengths)
        yield picture(
            "dates",
            f"Documents by {unit}",
            f"By the column {lengths.date_column}. Gaps are missing sources; one tall bar is often the day of a crawl, "
            f"not of writing.",
            columns(labels, counts),
        )


def embedding_pictures(figures: DatasetFigures) -> Iterator[Picture]:
    """Norms, spread by dimension, cosines."""
    found = figures.embeddings
    yield picture(
        "norms",
        "Norms of embeddings",
        "One hill. A second one is another encoder, or another scale; stragglers near 0 are empty sentences.",
        histogram({"sentences": found.norms}, "norm", whole=False),
    )
    yield picture(
        "cosines",
        "Neighbouring and random sentences",
        "Cosine of a sentence with the next one, and with one of another document. The further apart the hills, the "
        "more there is to predict; neighbours at 1.0 are repeated sentences.",
        histogram({"neighbours": found.neighbour_cosines, "random": found.random_cosines}, "cosine", whole=False),
    )
    dead = found.dead.tolist()
    told = (
        f"{len(dead)} of them never change ({_listed(dead)}): a normalizer leaves them alone." if dead else "All live."
    )
    yield picture(
        "dimensions",
        "Dimensions: mean and spread",
        f"Each of the {figures.concept_dim} dimensions, sorted by its mean and by its standard deviation. {told} A few "
        f"that tower over the rest dominate every distance until they are normalised.",
        [
            curves({"mean": found.mean}, "mean"),
            curves({"deviation": found.deviation}, "standard deviation", marked=dead),
        ],
        size=(WIDE, 3.2),
    )


def comparing_pictures(names: tuple[str, str], both: tuple[DatasetFigures, DatasetFigures]) -> Iterator[Picture]:
    """Distributions of two datasets over each other."""
    what = "The same shape twice: conversion should drop broken rows and change nothing else."
    tallies = {
        "sentences a document": ([sentences_of(f) for f in both], "sentences", True),
        "characters a sentence": ([f.lengths.characters for f in both], "characters", True),
        "norms": ([f.embeddings.norms for f in both], "norm", False),
        "cosines of neighbours": ([f.embeddings.neighbour_cosines for f in both], "cosine", False),
    }
    for title, (found, label, whole) in tallies.items():
        if all(len(tally) for tally in found):
            name = "both_" + title.replace(" ", "_")
            paint = histogram(dict(zip(names, found)), label, whole=whole)
            yield picture(name, f"Both: {title}", what, paint)
    if any(set(f.lengths.langs) - {UNKNOWN} for f in both):
        counts = {name: f.lengths.langs for name, f in zip(names, both)}
        yield picture(
            "both_languages", "Both: languages", "Shares of documents by language.", bars(counts, shares=True)
        )
    if both[0].concept_dim == both[1].concept_dim:
        spread = {name: f.embeddings.deviation for name, f in zip(names, both)}
        told = "Lines that part are another encoder, another precision or another normalisation."
        yield picture("both_spread", "Both: spread of dimensions", told, curves(spread, "standard deviation"))


def sentences_of(figures: DatasetFigures) -> Tally:
    """Of all documents where there is text, else of the sample."""
    return figures.lengths.sentences if len(figures.lengths.sentences) else figures.embeddings.sentences


def dates_of(lengths: Lengths) -> tuple[list[str], list[int], str]:
    """Labels and counts by month, or by year where there are many months; empty ones between them too."""
    first, last = min(lengths.months), max(lengths.months)
    if last - first < _MOST_MONTHS:
        months = range(first, last + 1)
        return [f"{m // 12}-{m % 12 + 1:02}" for m in months], [lengths.months[m] for m in months], "month"
    years = range(first // 12, last // 12 + 1)
    counts = [sum(lengths.months[12 * year + month] for month in range(12)) for year in years]
    return [str(year) for year in years], counts, "year"


def _listed(dims: list[int], most: int = 8) -> str:
    more = f" and {len(dims) - most} more" if len(dims) > most else ""
    return ", ".join(map(str, dims[:most])) + more
