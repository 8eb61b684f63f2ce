"""All that a report tells of one dataset."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.pipelines.report.config import ReportConfig
from lexalcm.pipelines.report.embeddings import Embeddings, collect_embeddings
from lexalcm.pipelines.report.lengths import Lengths, collect_lengths
from lexalcm.pipelines.report.sample import (
    Part,
    ReadingNotes,
    SampledDocument,
    first_documents,
    list_parts,
    new_notes,
)

_NUM_FIRST_DOCUMENTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class DatasetFigures:
    """Figures, and the rows they were taken from."""

    description: str

    parts: list[Part]
    """All rows, in file order."""

    num_rows: int

    num_files: int

    num_bytes: int

    concept_dim: int

    splits: dict[str, int]
    """Documents by split, as far as paths name them."""

    columns: dict[str, str]
    """Types by name; where files differ, each type with the number of files that have it."""

    lengths: Lengths

    embeddings: Embeddings

    first: list[SampledDocument]

    notes: ReadingNotes


def collect_figures(dataset: ConceptParquetDataset, config: ReportConfig) -> DatasetFigures:
    """Reads what a report shows.

    :raises DataError: There is no such split, or no good document in the sample.
    """
    parts = list_parts(dataset, config.split)
    num_rows = sum(part.num_rows for part in parts)
    notes = new_notes()
    sampled = config.num_documents(num_rows)
    embeddings = collect_embeddings(parts, sampled, config.seed, notes, concept_dim=dataset.concept_dim)
    lengths = collect_lengths(parts, config.seed, notes)
    files = {part.file.path: part.file for part in parts}
    splits: Counter[str] = Counter()
    for file in files.values():
        if file.split is not None:
            splits[file.split] += sum(file.rows)
    return DatasetFigures(
        description=dataset.describe(),
        parts=parts,
        num_rows=num_rows,
        num_files=len(files),
        num_bytes=sum(file.size for file in files.values()),
        concept_dim=dataset.concept_dim,
        splits=dict(splits),
        columns=_column_types(parts),
        lengths=lengths,
        embeddings=embeddings,
        first=first_documents(parts, _NUM_FIRST_DOCUMENTS, concept_dim=dataset.concept_dim),
        notes=notes,
    )


def _column_types(parts: Sequence[Part]) -> dict[str, str]:
    files = list({part.file.path: part.file for part in parts}.values())
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for file in files:
        for field in file.schema:
            found[field.name][str(field.type)] += 1
        for name in file.partitions.keys() - set(file.schema.names):
            found[name]["partition of the path"] += 1
    told = {}
    for name, kinds in found.items():
        every = len(kinds) == 1 and kinds.total() == len(files)
        told[name] = ", ".join(
            kind if every else f"{kind} ({count} of {len(files)} files)" for kind, count in kinds.items()
        )
    return told
