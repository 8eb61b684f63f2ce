"""Two datasets side by side, such as one before and after conversion: documents matched, and how far they differ.

Shapes: T sentences of a document, C dimensions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lexalcm.data.open_files import OpenFiles
from lexalcm.errors import DataError
from lexalcm.pipelines.report.draw import WIDE, Picture, picture, strips
from lexalcm.pipelines.report.figures import DatasetFigures
from lexalcm.pipelines.report.sample import (
    Part,
    SampledDocument,
    choose_rows,
    new_notes,
    part_of_row,
    read_documents,
    read_light,
    texts_of,
)

_MOST_DOCUMENTS: Final = 500
_MOST_SENTENCES: Final = 10_000
_STRIP: Final = 32


@dataclass(frozen=True)
class Comparison:
    """What became of documents of the first dataset in the second."""

    matched_by: str | None
    """``id`` or ``place``; ``None`` where neither tells which documents belong together."""

    num_looked_for: int

    num_found: int

    num_other_length: int
    """Matched documents with another number of sentences."""

    num_sentences: int
    """Sentences compared."""

    largest_difference: float | None
    """Of two components; ``None`` where nothing could be compared."""

    largest_in: str | None
    """The document that it is in."""

    num_identical: int
    """Documents without any difference."""

    strips: Picture | None


def compare(names: tuple[str, str], first: DatasetFigures, second: DatasetFigures, *, seed: int) -> Comparison:
    """Reads up to 500 documents of the first dataset, and the same in the second."""
    documents = _some_documents(first, seed)
    by_id = all(document.id is not None for document in documents) and any(p.columns.id for p in second.parts)
    if by_id:
        matched_by: str | None = "id"
        wanted = _rows_of_ids(second.parts, {str(document.id) for document in documents})
        pairs = [(document, wanted.get(str(document.id))) for document in documents]
    elif first.num_rows == second.num_rows:
        matched_by = "place"
        pairs = [(document, document.number) for document in documents]
    else:
        matched_by, pairs = None, []
    found = _documents_at(second, [row for _, row in pairs if row is not None])
    both = [(a, found[row]) for a, row in pairs if row is not None and row in found]
    return _compared(names, matched_by, len(documents), both)


def _compared(
    names: tuple[str, str],
    matched_by: str | None,
    num_looked_for: int,
    both: Sequence[tuple[SampledDocument, SampledDocument]],
) -> Comparison:
    largest, largest_in, identical, num_sentences = -1.0, None, 0, 0
    same = [(a, b) for a, b in both if a.concepts.shape == b.concepts.shape]
    for a, b in same:
        difference = np.abs(a.concepts.astype(np.float64) - b.concepts.astype(np.float64)).max(initial=0.0)
        num_sentences += len(a.concepts)
        identical += int(difference == 0.0)
        if difference > largest:
            largest, largest_in = float(difference), a.id or a.place
    return Comparison(
        matched_by=matched_by,
        num_looked_for=num_looked_for,
        num_found=len(both),
        num_other_length=sum(len(a.concepts) != len(b.concepts) for a, b in both),
        num_sentences=num_sentences,
        largest_difference=largest if same else None,
        largest_in=largest_in,
        num_identical=identical,
        strips=_strips(names, same) if same else None,
    )


def _strips(names: tuple[str, str], same: Sequence[tuple[SampledDocument, SampledDocument]]) -> Picture:
    sides = [np.concatenate([pair[side].concepts.astype(np.float32) for pair in same])[:_STRIP] for side in (0, 1)]
    rows = {names[0]: sides[0], names[1]: sides[1], "difference": sides[0] - sides[1]}
    told = (
        f"The first {len(sides[0])} matched embeddings, one a row. A and B should look alike, the difference white or "
        f"like noise: stripes are dimensions that were changed."
    )
    return picture("embedding_strips", "Embeddings as strips", told, strips(rows), size=(WIDE, 5.4), rows=3)


def _some_documents(figures: DatasetFigures, seed: int) -> list[SampledDocument]:
    found: list[SampledDocument] = []
    size = 0
    for document in _read(figures, choose_rows(figures.parts, min(_MOST_DOCUMENTS, figures.num_rows), seed)):
        size += len(document.concepts)
        if found and size > _MOST_SENTENCES:
            break
        found.append(document)
    return found


def _rows_of_ids(parts: Sequence[Part], wanted: set[str]) -> dict[str, int]:
    """The first row of each name, counted over all files."""
    files = OpenFiles()
    rows: dict[str, int] = {}
    for part in parts:
        row = part.first
        try:
            for table, passed in read_light(files, part, [part.columns.id]):
                for name, passes in zip(texts_of(table, part, part.columns.id), passed.tolist()):
                    if passes and name is not None and name in wanted:
                        rows.setdefault(name, row)
                    row += 1
        except DataError:
            # Its documents are then told as not found; the figures note the file.
            continue
    return rows


def _documents_at(figures: DatasetFigures, rows: Sequence[int]) -> dict[int, SampledDocument]:
    by_part: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_part[part_of_row(figures.parts, row)].append(row)
    chosen = []
    for index in sorted(by_part):
        part = figures.parts[index]
        mask = np.zeros(part.num_rows, dtype=bool)
        mask[[row - part.first for row in by_part[index]]] = True
        chosen.append((part, mask))
    return {document.number: document for document in _read(figures, chosen)}


def _read(figures: DatasetFigures, chosen: Sequence[tuple[Part, np.ndarray]]) -> Iterator[SampledDocument]:
    """Documents in memory of their own, so that no more of a file stays than is asked for."""
    files, notes = OpenFiles(), new_notes()
    for part, mask in chosen:
        for documents in read_documents(files, part, mask, concept_dim=figures.concept_dim, notes=notes):
            for document in documents:
                yield document.owned()
