"""The dataset family ``concept_parquet``: documents as lists of sentence embeddings in parquet files.

Reads with pyarrow alone. ``fairseq2.data.parquet`` is about as fast, but drops rows with nulls unasked, cannot read
list<list> columns, fails on marker files, and evaluates strings of its configuration as code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from fairseq2.logging import log

from lexalcm.data.batch import Affixes
from lexalcm.data.discover import DataFile, DataWarning, SourceFiles, discover, same_split
from lexalcm.data.filters import columns_of, passes_partitions
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.order import units_of_file
from lexalcm.data.peek_width import peek_width
from lexalcm.data.reader import ConceptReader
from lexalcm.data.rows import Rows, check_schema, read_unit
from lexalcm.data.sources import ConceptParquetConfig, ReadingConfig, SourceConfig
from lexalcm.data.special_concepts import load_special_concepts
from lexalcm.data.validate import BadRowCounter
from lexalcm.data.watch import Watch
from lexalcm.errors import DataError


@dataclass(frozen=True)
class Document:
    """One row of the dataset."""

    id: str
    """``source:relative path:row``."""

    concepts: np.ndarray
    """``[T, C]`` as stored, in memory of its own."""

    sentences: list[str] | None
    """Its text, if the dataset reads text (of both, where there is a source and a target)."""

    file: str

    row: int

    num_source: int = 0
    """How many concepts at the start are the source of a document with a target; 0 in one without."""


class ConceptParquetDataset:
    """Open files with known columns; nothing but footers is read yet."""

    def __init__(self, config: ConceptParquetConfig) -> None:
        """
        :raises ConfigError: A field of the configuration cannot be honoured.
        :raises DataError: A file or column is missing, damaged, or not what is expected.
        """
        self.config = config
        self._sources = [SourceFiles(source, _discover(source)) for source in config.resolved_sources()]
        self.concept_dim = self._check_files()
        """Width of the vectors."""

    def _check_files(self) -> int:
        width = self.config.concept_dim
        said_partition = False
        for source in self._sources:
            for file in source.files:
                width = check_schema(file, source.config, width) or width
                both = sorted(set(file.partitions) & set(file.schema.names))
                if both and not said_partition:
                    said_partition = True
                    warnings.warn(
                        f"{file.path}: `{both[0]}` is a partition of the path (text) and a column of the file "
                        f"({file.schema.field(both[0]).type}); the path's value is used.",
                        DataWarning,
                        stacklevel=3,
                    )
        if self.num_rows() == 0:
            files = [f.path for s in self._sources for f in s.files]
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            raise DataError(f"The dataset has no documents: {files[0]}{more} has no rows.")
        if width is not None:
            return width
        return peek_width((file, str(source.config.embedding_column)) for source in self._sources for file in source.files)

    @property
    def is_supervised(self) -> bool:
        """Whether documents are a source and a target, of which the target alone is to be predicted."""
        return self._sources[0].config.target_column is not None

    @property
    def splits(self) -> list[str]:
        """The splits that paths name, sorted."""
        return sorted({f.split for s in self._sources for f in s.files if f.split is not None})

    def files(self, split: str | None) -> list[SourceFiles]:
        """The files of a split by source, ``None`` for all; those that filters on partitions leave out are gone.

        :raises DataError: There is no such split, or filters leave nothing.
        """
        chosen = []
        for source in self._sources:
            asked = source.config.split if source.config.split is not None else split
            files = [
                f
                for f in source.files
                if (asked is None or same_split(asked, f.split))
                and passes_partitions(source.config.filters, f.partitions)
            ]
            chosen.append(SourceFiles(source.config, files))
        if not any(s.files for s in chosen):
            paths = ", ".join(s.config.path for s in self._sources)
            if (
                any(s.files for s in self._sources)
                and split is None
                and all(s.config.split is None for s in self._sources)
            ):
                columns = {c for s in self._sources for f in s.config.filters for c in columns_of(f)}
                raise DataError(
                    f"The dataset {paths} has no file that its `filters` on {', '.join(sorted(columns))} let pass."
                )
            found = f"splits found: {', '.join(self.splits)}" if self.splits else "its paths name no splits"
            fix = "Name one of them" if self.splits else "Lay files out as split=train/ and split=validation/"
            raise DataError(
                f"The dataset {paths} has no files for the split `{split}`; {found}.\n"
                f"{fix}, or set `dataset.train_split` (or `valid_split`) to null, which takes all files (or none)."
            )
        return chosen

    def num_rows(self, split: str | None = None) -> int:
        """Rows of a split as the footers tell; filters and bad rows not considered."""
        sources = self._sources if split is None else self.files(split)
        return sum(sum(f.rows) for s in sources for f in s.files)

    def describe(self) -> str:
        """One line: files, their size, row groups, documents, splits, width."""
        files = [f for s in self._sources for f in s.files]
        groups, megabytes = sum(len(f.rows) for f in files), sum(f.size for f in files) / 1e6
        by_split = ", ".join(f"{split}: {self.num_rows(split):,}" for split in self.splits) or "no splits"
        return (
            f"{len(files):,} file(s) of {megabytes:,.1f} MB, {groups:,} row group(s), {self.num_rows():,} documents "
            f"({by_split}), concepts of {self.concept_dim} dimensions"
        )

    def documents(self, split: str | None = None) -> Iterator[Document]:
        """Yields documents in file order: files sorted by relative path, rows as stored, bad ones handled as
        configured."""
        counter = self.bad_row_counter()
        open_files = OpenFiles()
        for source in self.files(split):
            watch = Watch(source.config.path)
            for file in source.files:
                name = f"{source.config.name}:{file.relative}"
                for unit in units_of_file(file.rows, file.components, concept_dim=self.concept_dim):
                    for rows in read_unit(
                        open_files,
                        file,
                        source.config,
                        unit,
                        concept_dim=self.concept_dim,
                        counter=counter,
                        watch=watch,
                    ):
                        yield from _documents(rows, name, file.path)
            watch.finish()
        if counter.num_bad:
            log.warning(
                "Data - {:,} of {:,} documents are bad and skipped ({}).",
                counter.num_bad,
                counter.seen,
                counter.summary(),
            )

    def bad_row_counter(self) -> BadRowCounter:
        """A fresh count of bad rows, under this dataset's rules."""
        return BadRowCounter(skip=self.config.on_bad_rows == "skip", max_share=self.config.max_bad_share)

    def create_reader(
        self,
        split: str | None,
        reading: ReadingConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_accumulate: int = 1,
        concept_dim: int | None = None,
        pin_memory: bool = False,
        any_rank: Callable[[bool], bool] | None = None,
    ) -> ConceptReader:
        """Makes the reader that training takes batches from.

        :param num_accumulate: Micro-batches of a step.
        :param concept_dim: What the model expects.
        :param any_rank: Tells whether a flag is true on any rank; needed with several, so that all end an epoch
            together.
        :raises ConfigError: A field of ``reading`` cannot be honoured, or does not go with the data.
        :raises DataError: The model expects another width, a special concept does not fit, or a source with a weight
            has no files.
        """
        reading.check(supervised=self.is_supervised)
        if concept_dim is not None and concept_dim != self.concept_dim:
            raise DataError(
                f"The dataset's concepts have {self.concept_dim} dimensions, but the model's `concept_dim` is "
                f"{concept_dim}.\n"
                f"Set --config model.config_overrides.concept_dim={self.concept_dim} (`sonar_embed_dim` in Meta's families)."
            )
        sources = self.files(split)
        for source in sources:
            if source.files:
                continue
            if source.config.weight is not None and source.config.only_split is not None:
                raise DataError(
                    f"The dataset {source.config.name} has a weight, but no file of the split `{split}`.\n"
                    f"Set `dataset.train_split: null`: each dataset is then read as far as its name says."
                )
            if source.config.weight is not None:
                raise DataError(
                    f"The source {source.config.path} has a weight, but no file of the split `{split}` (or its "
                    f"`filters` leave none).\nLeave it out, or name a split of its own: `split` of the source."
                )
            log.warning("Data - the source {} has no files for the split {}.", source.config.path, split)
        return ConceptReader(
            sources,
            self.concept_dim,
            self.bad_row_counter(),
            reading,
            self.affixes(reading),
            rank=rank,
            world_size=world_size,
            num_accumulate=num_accumulate,
            pin_memory=pin_memory,
            any_rank=any_rank,
        )

    def affixes(self, reading: ReadingConfig) -> Affixes:
        """Loads the special concepts that ``reading`` names.

        :raises DataError: One is missing, or does not fit.
        """
        if reading.special_concepts is None:
            return Affixes()
        special = load_special_concepts(reading.special_concepts)
        names = (reading.prefix, reading.suffix, reading.target_suffix)
        return Affixes(*(None if name is None else special.get(name, self.concept_dim) for name in names))


def _documents(rows: Rows, name: str, path: str) -> Iterator[Document]:
    num_source = np.zeros_like(rows.lengths) if rows.num_source is None else rows.num_source
    places = zip(*(x.tolist() for x in (rows.starts, rows.lengths, rows.rows, rows.chunk_rows, num_source)))
    for start, length, row, chunk_row, length_of_source in places:
        sentences = None if rows.sentences is None else rows.sentences.of(chunk_row)
        concepts = rows.values[start : start + length].copy()
        yield Document(f"{name}:{row}", concepts, sentences, path, row, length_of_source)


def _discover(source: SourceConfig) -> list[DataFile]:
    """
    :raises DataError: The source has no files, or none of the split that alone it may read.
    """
    files = discover(source.path, str(source.embedding_column))
    if source.only_split is None:
        return files
    kept = [file for file in files if same_split(source.only_split, file.split)]
    if not kept:
        found = ", ".join(sorted({file.split for file in files if file.split is not None})) or "none that paths name"
        raise DataError(f"{source.name}: {source.path} has no split `{source.only_split}`; it has {found}.")
    return kept


def open_concept_parquet(config: ConceptParquetConfig) -> ConceptParquetDataset:
    """What fairseq2 calls to open a dataset of the family."""
    return ConceptParquetDataset(config)
