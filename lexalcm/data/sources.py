"""What data there is and how it is batched: configuration, validated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lexalcm.data.filters import FilterConfig
from lexalcm.errors import ConfigError

EMBEDDING_COLUMN = "text_sentences_sonar_emb"

CONCEPT_PARQUET = "concept_parquet"
"""The dataset family, also of Meta's cards, which name none."""


@dataclass(kw_only=True)
class SourceConfig:
    """One place with parquet files."""

    path: str = ""
    """A file or directory, local or an fsspec URL. Hive partitions (``split=train/``) and ``Train/``, ``Val/`` are
    known."""

    name: str | None = None
    """What the source is called in messages and sample ids; by default the last part of its path."""

    weight: float | None = None
    """Share of documents drawn from this source; all sources have one, or none. Without, they are joined."""

    split: str | None = None
    """Take this split whatever the dataset is asked for."""

    only_split: str | None = None
    """Read nothing but this split: asked for another one, the source has no files."""

    embedding_column: str | None = None
    """Overrides the dataset's."""

    text_column: str | None = None
    """Overrides the dataset's."""

    target_column: str | None = None
    """Overrides the dataset's; all sources have one, or none."""

    target_text_column: str | None = None
    """Overrides the dataset's."""

    id_column: str | None = None
    """Overrides the dataset's."""

    filters: list[FilterConfig] = field(default_factory=list)
    """Rows must pass these too."""


@dataclass(kw_only=True)
class ConceptParquetConfig:
    """A dataset of documents as lists of sentence embeddings, in Meta's parquet layout or LexaLCM's."""

    path: str | None = None
    """The short form for one source."""

    sources: list[SourceConfig] = field(default_factory=list)
    """Several sources."""

    embedding_column: str = EMBEDDING_COLUMN
    """Column of embeddings: lists of vectors."""

    text_column: str | None = None
    """Column of sentences, checked against the embeddings; ``null`` leaves text unread."""

    target_column: str | None = None
    """Column of the embeddings to predict, of supervised data. A document is then what the embedding column holds, its
    source, followed by this, its target; the source is context alone. ``null``: every concept is predicted."""

    target_text_column: str | None = None
    """Column of the target's sentences, checked against its embeddings; ``null`` leaves them unread."""

    id_column: str | None = None
    """Column that names documents; a name that comes twice is told. ``null`` leaves it unread."""

    concept_dim: int | None = None
    """Width of a vector; ``null`` takes what the first file has."""

    on_bad_rows: Literal["error", "skip"] = "error"
    """What a document that must not be trained on does: stop, or be skipped and counted."""

    max_bad_share: float = 0.01
    """With ``skip``: stop all the same when more than this share of rows is bad, once 1,000 have been seen."""

    filters: list[FilterConfig] = field(default_factory=list)
    """Rows must pass all of these."""

    def resolved_sources(self) -> list[SourceConfig]:
        """Returns the sources with nothing left to inherit.

        :raises ConfigError: A field cannot be honoured.
        """
        if bool(self.path) == bool(self.sources):
            raise ConfigError("A concept_parquet dataset needs `path` or `sources`, and not both.")
        sources = self.sources or [SourceConfig(path=str(self.path))]
        weighted = [s for s in sources if s.weight is not None]
        if weighted and len(weighted) != len(sources):
            raise ConfigError("`sources`: all of them need a `weight`, or none.")
        for number, source in enumerate(sources):
            where = f"`sources[{number}]"
            if not isinstance(source.path, str) or not source.path.strip():
                raise ConfigError(f"{where}.path` must be a file, a directory or a URL, but is {source.path!r}.")
            if source.weight is not None and not (_is_number(source.weight) and 0.0 < source.weight < float("inf")):
                raise ConfigError(f"{where}.weight` must be a number above 0, but is {source.weight!r}.")
        if self.concept_dim is not None and not (_is_integer(self.concept_dim) and self.concept_dim >= 1):
            raise ConfigError(f"`concept_dim` must be an integer of at least 1, but is {self.concept_dim!r}.")
        if self.on_bad_rows not in ("error", "skip"):
            raise ConfigError(f"`on_bad_rows` must be error or skip, but is {self.on_bad_rows!r}.")
        if not (_is_number(self.max_bad_share) and 0.0 <= self.max_bad_share <= 1.0):
            raise ConfigError(f"`max_bad_share` must be a number between 0 and 1, but is {self.max_bad_share!r}.")
        resolved = [
            SourceConfig(
                path=s.path,
                name=s.name or s.path.rstrip("/").rsplit("/", 1)[-1],
                weight=s.weight,
                split=s.split,
                only_split=s.only_split,
                embedding_column=s.embedding_column or self.embedding_column,
                text_column=s.text_column or self.text_column,
                target_column=s.target_column or self.target_column,
                target_text_column=s.target_text_column or self.target_text_column,
                id_column=s.id_column or self.id_column,
                filters=[*_filters(self.filters, "filters"), *_filters(s.filters, f"sources[{number}].filters")],
            )
            for number, s in enumerate(sources)
        ]
        for number, source in enumerate(resolved):
            while source.name in [other.name for other in resolved[:number]]:
                # Two folders called alike, say a/train and b/train: ids and saved positions must tell them apart.
                source.name = f"{source.name}#{number}"
        _check_targets(resolved)
        return resolved


@dataclass(kw_only=True)
class ReadingConfig:
    """How documents become batches."""

    max_seq_len: int = 128
    """Concepts of a document in one batch row; longer documents are cut into windows. Prefix and suffix come on top.
    Documents with a target are never cut: those whose source and target are longer are left out and counted."""

    min_context_len: int = 0
    """Concepts that a target must have before it in its window, the prefix counted; 1 for a model that cannot predict
    from nothing. In documents with a target the source is the context, and whatever is above 1 counts as 1."""

    min_document_len: int = 1
    """Shorter documents are left out and counted."""

    max_document_len: int | None = None
    """Longer documents are left out and counted."""

    concepts_per_batch: int | None = 16_384
    """Bound of a batch in concepts of documents, whatever their lengths; padding and affixes come on top."""

    documents_per_batch: int | None = None
    """Instead: a batch is so many documents (or windows of them)."""

    pack: bool = True
    """Documents one after the other without padding; ``false`` pads to the longest, ``[B, T, C]``."""

    hold_out_every: int | None = None
    """Leave out every n-th row of each file, from the first on, to validate on; see ``dataset.hold_out_every``."""

    special_concepts: str | None = None
    """Safetensors file with the vectors that ``prefix``, ``suffix`` and ``target_suffix`` name."""

    prefix: str | None = None
    """Special concept before each document; it is context, not a target."""

    suffix: str | None = None
    """Special concept after each document, where it is a target; after the source of a document with a target, where it
    is context."""

    target_suffix: str | None = None
    """Special concept after each target, and part of it. There is none before a target: ``suffix`` stands there."""

    shuffle: bool = True
    """Another order in each epoch; ``false`` keeps that of the files."""

    shuffle_window: int = 100_000
    """How many concepts are read at a time and shuffled together; row groups are shuffled before that. Twice as many
    are in memory at most."""

    seed: int = 1
    """Of the order."""

    dtype: Literal["float32", "float16"] = "float32"
    """Of the vectors in a batch."""

    prefetch: int = 4
    """Batches that are made ready ahead; 0 reads in the training thread."""

    num_workers: int = 2
    """Threads that decode row groups."""

    def check(self, *, supervised: bool | None = None) -> None:
        """
        :param supervised: Whether the data have targets of their own; ``None`` if that is not known yet.
        :raises ConfigError: A field cannot be honoured.
        """
        where = "`dataset.reading"
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not _is_integer(value) or value < least:
                raise ConfigError(f"{where}.{name}` must be an integer of at least {least}, but is {value!r}.")
        for name in ("pack", "shuffle"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{where}.{name}` must be true or false, but is {getattr(self, name)!r}.")
        if self.max_document_len is not None and self.max_document_len < self.min_document_len:
            raise ConfigError(
                f"{where}.max_document_len` ({self.max_document_len}) must be at least `min_document_len` "
                f"({self.min_document_len})."
            )
        given = [n for n in ("concepts_per_batch", "documents_per_batch") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"{where}`: exactly one of `concepts_per_batch` and `documents_per_batch` must be set, the other null."
            )
        if self.concepts_per_batch is not None and self.concepts_per_batch < self.max_seq_len:
            raise ConfigError(
                f"{where}.concepts_per_batch` ({self.concepts_per_batch}) must be at least `max_seq_len` "
                f"({self.max_seq_len}), or a long document fits no batch."
            )
        affixes = [name for name in ("prefix", "suffix", "target_suffix") if getattr(self, name)]
        if affixes and not self.special_concepts:
            raise ConfigError(f"{where}.special_concepts` must name the file that holds `{'` and `'.join(affixes)}`.")
        if supervised is False and self.target_suffix:
            raise ConfigError(
                f"{where}.target_suffix` is for data with a `target_column`; what stands after a document is `suffix`."
            )
        if supervised and not self.pack:
            raise ConfigError(f"{where}.pack` must be true for data with a `target_column`: padded batches have none.")
        if self.dtype not in ("float32", "float16"):
            raise ConfigError(f"{where}.dtype` must be float32 or float16, but is {self.dtype!r}.")


_LEAST = {
    "max_seq_len": 1,
    "min_context_len": 0,
    "min_document_len": 0,
    "max_document_len": 1,
    "concepts_per_batch": 1,
    "documents_per_batch": 1,
    "hold_out_every": 2,
    "shuffle_window": 1,
    "seed": 0,
    "prefetch": 0,
    "num_workers": 1,
}
_OPTIONAL = ("max_document_len", "hold_out_every", "concepts_per_batch", "documents_per_batch")


def _check_targets(sources: list[SourceConfig]) -> None:
    for source in sources:
        if source.target_text_column is not None and source.target_column is None:
            raise ConfigError(
                f"{source.path}: `target_text_column` is {source.target_text_column}, but there is no `target_column` "
                f"whose sentences it holds."
            )
    supervised, others = ([s.path for s in sources if (s.target_column is not None) is x] for x in (True, False))
    if supervised and others:
        raise ConfigError(
            f"`sources`: {supervised[0]} has a `target_column`, but {others[0]} has none. Documents with and without "
            f"targets cannot be read together."
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _filters(value: object, field: str) -> list[FilterConfig]:
    if not isinstance(value, list) or not all(isinstance(f, FilterConfig) for f in value):
        raise ConfigError(
            f"`{field}` must be a list of mappings with column, operator and value, but is {str(value)[:80]!r}. "
            f"Filters are data; text is never evaluated."
        )
    for row_filter in value:
        row_filter.check()
    return value
