"""What a conversion is asked for, checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lexalcm.data.sources import EMBEDDING_COLUMN
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import ConfigError, unknown_name

LAYOUTS: Final = ("lexalcm", "hive")
DTYPES: Final = ("keep", "float16", "float32")
REPAIRS: Final = ("fail", "drop")
BY_HASH: Final = "none"
"""In place of a column of splits: draw them by hash, whatever the source says."""

SEED: Final = 0
_MOST_WORKERS: Final = 256


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """From a dataset in Meta's layout, or any parquet files of documents, to LexaLCM's."""

    source: str
    """A file or folder, local or an fsspec URL."""

    output: str
    """A local folder."""

    layout: str = "lexalcm"
    """``lexalcm``: ``Train/``, ``Val/``, ``Test/``; ``hive``: ``split=train/`` and so on, as Meta reads."""

    dtype: str = "keep"
    """Of the components written; ``keep`` leaves half as it is and makes float and double float32."""

    repair: str = "fail"
    """What a bad row does: stop the conversion, or be left out and listed."""

    skip_damaged_files: bool = False
    """Pass over files that cannot be read, and list them; only together with ``repair: drop``."""

    embedding_column: str = EMBEDDING_COLUMN

    text_column: str | None = TEXT_COLUMN
    """Its sentences are checked against the embeddings; ``None`` for data without text."""

    id_column: str | None = None
    """What splits are drawn by; ``None`` takes ``id`` where there is one, and else the document's content."""

    concept_dim: int | None = None
    """Width that vectors must have; ``None`` takes what the first file has."""

    split_column: str | None = None
    """Column with the name of each row's split. ``None``: what paths say, else a text column ``split``, else by hash;
    ``none``: by hash whatever the source says."""

    validation_share: float | None = None
    """Share of documents drawn for validation; ``None`` is 0.05. Only where splits are drawn by hash."""

    seed: int | None = None
    """Of that draw; ``None`` is 0."""

    num_workers: int = 2
    """Threads that read and convert."""

    overwrite: bool = False
    """Begin anew in a folder that another conversion has written."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        for option, value, known in (
            ("layout", self.layout, LAYOUTS),
            ("dtype", self.dtype, DTYPES),
            ("repair", self.repair, REPAIRS),
        ):
            if value not in known:
                raise ConfigError(f"--{option}: {unknown_name(option, value, known)}")
        if self.skip_damaged_files and self.repair != "drop":
            raise ConfigError("--skip-damaged-files leaves data out, so it needs --repair drop too.")
        if not self.source.strip():
            raise ConfigError("IN must be a file, a folder or a URL, but is empty.")
        if not self.output.strip() or "://" in self.output:
            raise ConfigError(f"OUT must be a folder on this machine, but is {self.output!r}. Copy it from there.")
        if self.id_column is not None and self.id_column == self.split_column:
            raise ConfigError(f"--id-column and --split-column must be two columns, but both are `{self.id_column}`.")
        if self.concept_dim is not None and self.concept_dim < 1:
            raise ConfigError(f"--concept-dim must be at least 1, but is {self.concept_dim}.")
        if not 1 <= self.num_workers <= _MOST_WORKERS:
            raise ConfigError(f"--workers must be from 1 to {_MOST_WORKERS}, but is {self.num_workers}.")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError(f"--seed must be an integer of at least 0, but is {self.seed}.")
        self._check_places()

    def _check_places(self) -> None:
        output = self.folder.resolve()
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"OUT must be a folder, but {self.folder} is a file.")
        if "://" in self.source:
            return
        source = Path(self.source).resolve()
        if output == source or source in output.parents or output in source.parents:
            raise ConfigError(
                f"IN ({source}) and OUT ({output}) must not lie in each other: a conversion would read what it wrote."
            )

    @property
    def folder(self) -> Path:
        """The output as a path."""
        return Path(self.output)

    @property
    def place_of_source(self) -> str:
        """The source, independent of the working directory."""
        return self.source if "://" in self.source else str(Path(self.source).absolute())
