"""What the input of ``prepare`` is: paths, format, and the meaning of columns."""

from __future__ import annotations

from dataclasses import dataclass

from lexalcm.errors import ConfigError, unknown_name
from lexalcm.pipelines.prepare.raw_files import FORMATS


@dataclass(kw_only=True)
class InputConfig:
    """Where raw documents are, and what their columns mean.

    - ``.jsonl``, ``.ndjson``: an object a line.
    - ``.json``: an array of objects, or an object with such an array as ``data``.
    - ``.csv``, ``.tsv``: names of columns in the first line; all values are text.
    - ``.txt``: a document a file; its id is its path without the suffix.
    - ``.parquet``: a row a document; hive partitions are columns of text.
    - ``.arrow``, and folders that Hugging Face's ``save_to_disk`` wrote; its splits are the column ``split``.

    All of them in folders, all but the last two also as ``.gz``, ``.bz2``, ``.xz`` or ``.zst``, on disk or at an fsspec
    URL. A column's type is the one that holds its values in all files: whole numbers and others are numbers, null goes
    with everything. Objects and lists whose values do not go together that way are kept as JSON text.
    """

    paths: tuple[str, ...]
    """Files, folders, patterns with ``*``, or their URLs; documents are in this order."""

    format: str | None = None
    """Of all files; ``None``: by their suffixes."""

    text_columns: tuple[str, ...] = ("text",)
    """What is made into concepts: one column, or those of prompts and of answers."""

    lang_column: str | None = None
    """Of a document's language."""

    id_column: str | None = None
    """Becomes the column ``id``, as text. ``None``: ``id`` where there is one; else ids are made, of the file's name
    and the number of the document in it, from 1."""

    split_column: str | None = None
    """Of the split that a document belongs to; ``None``: the one that paths tell, if they do."""

    drop_columns: tuple[str, ...] = ()
    """Left out."""

    as_text_columns: tuple[str, ...] = ()
    """Kept as text whatever they hold: what is not text yet becomes JSON."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured, or contradicts another."""
        for name in ("paths", "text_columns", "drop_columns", "as_text_columns"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(value, str) and value.strip() for value in values):
                raise ConfigError(f"`{name}` must be a list of names, but is {values!r}.")
            if len(set(values)) != len(values):
                raise ConfigError(f"`{name}` has {next(v for v in values if values.count(v) > 1)} twice.")
        if not self.paths:
            raise ConfigError("`paths` must name a file or folder with documents at least.")
        if self.format is not None and self.format not in FORMATS:
            raise ConfigError(f"`format`: {unknown_name('format', str(self.format), FORMATS)}")
        if not 1 <= len(self.text_columns) <= 2:
            raise ConfigError(
                f"`text_columns` must be one column, or those of prompts and answers, but are {len(self.text_columns)}."
            )
        roles = {"text_columns": self.text_columns}
        for name in ("lang_column", "id_column", "split_column"):
            column = getattr(self, name)
            if column is None:
                continue
            if not isinstance(column, str) or not column.strip():
                raise ConfigError(f"`{name}` must be the name of a column, but is {column!r}.")
            roles[name] = (column,)
        owners: dict[str, str] = {}
        for role, columns in roles.items():
            for column in columns:
                if column in self.drop_columns:
                    raise ConfigError(f"`{column}` is to be left out (--drop-column), but `{role}` needs it.")
                if column in owners:
                    raise ConfigError(f"`{column}` cannot be `{owners[column]}` and `{role}` at once.")
                owners[column] = role
        both = sorted({*self.drop_columns} & {*self.as_text_columns})
        if both:
            raise ConfigError(f"`{both[0]}` is to be left out (--drop-column) and kept as text (--as-text).")
