"""What is measured, and what baselines may learn from: streams of a dataset's documents, cut as in the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.discover import same_split
from lexalcm.errors import DataError
from lexalcm.evaluation.protocol import cut

ALL: Final = "all"
TRAIN: Final = "train"


@dataclass(frozen=True)
class SplitDocuments:
    """The documents ``[T, C]`` of a split in file order; every iteration reads them anew, so that none need be kept."""

    dataset: ConceptParquetDataset

    split: str | None
    """``None``: all files."""

    most: int | None = None
    """Stop after so many."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return islice(cut(document.concepts for document in self.dataset.documents(self.split)), self.most)


def chosen_split(dataset: ConceptParquetDataset, name: str) -> str | None:
    """The split that the option ``--split`` means; ``None`` for ``all``.

    :raises DataError: The dataset has no such split.
    """
    if name == ALL:
        return None
    try:
        dataset.files(name)
    except DataError:
        found = f"it has {', '.join(dataset.splits)}" if dataset.splits else "its paths name no splits"
        raise DataError(
            f"The dataset has no files for `--split {name}`: {found}.\nTake everything with --split {ALL}."
        ) from None
    return name


def training_documents(
    dataset: ConceptParquetDataset, split: str | None, *, other: ConceptParquetDataset | None = None
) -> SplitDocuments | None:
    """What baselines are fitted on: the train split of ``other`` (all of it, if it names none), else that of the
    dataset itself; ``None`` where that would be the very documents that are measured.

    :param split: The split that is measured.
    :raises DataError: ``other`` has concepts of another width.
    """
    if other is not None:
        if other.concept_dim != dataset.concept_dim:
            raise DataError(
                f"`--baseline-data` has concepts of {other.concept_dim} dimensions, but the dataset's have "
                f"{dataset.concept_dim}."
            )
        return SplitDocuments(other, TRAIN if _has_train(other) else None)
    if split is None or same_split(TRAIN, split) or not _has_train(dataset):
        return None
    return SplitDocuments(dataset, TRAIN)


def check_dim(concept_dim: int, dataset: ConceptParquetDataset) -> None:
    """:raises DataError: Model and dataset have concepts of different widths."""
    if concept_dim != dataset.concept_dim:
        raise DataError(
            f"The model predicts concepts of {concept_dim} dimensions, but the dataset's have {dataset.concept_dim}.\n"
            f"Measure it on embeddings of the encoder that it was trained with."
        )


def _has_train(dataset: ConceptParquetDataset) -> bool:
    return any(same_split(TRAIN, split) for split in dataset.splits)
