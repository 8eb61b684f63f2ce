"""The columns of prepared data: an id, what the input has besides text, the language, sentences, concepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from lexalcm.errors import ConfigError
from lexalcm.pipelines.prepare.config import (
    LANG_COLUMN,
    LANG_GIVEN_COLUMN,
    LANG_RULE_COLUMN,
    PrepareConfig,
)
from lexalcm.pipelines.prepare.inputs import ID_COLUMN, PLACE_COLUMN, ROW_COLUMN

SPLIT_COLUMN: Final = "__split"
"""Between mapper and writer: the split of each row, which the path of its file will say."""


_PATH_COLUMN: Final = "split"
"""As paths say it; a column of that name would be hidden behind it."""


class OutputSchema:
    """Which columns a prepared file has, in which order."""

    def __init__(self, config: PrepareConfig, raw: pa.Schema, dim: int, *, split_column: str | None = None) -> None:
        """
        :param raw: Of the input, with its id.
        :param dim: C of the encoder.
        :param split_column: Of the input; the paths of files say it in place of a column.
        :raises ConfigError: A column of the input has the name of one that is made.
        """
        self._config = config
        self.split_column = split_column
        texts = {role.column for role in config.roles}
        gone = {*texts, split_column, ROW_COLUMN, PLACE_COLUMN}
        leaf = pa.float16() if config.dtype == "float16" else pa.float32()
        made = [pa.field(LANG_COLUMN, pa.string()), pa.field(LANG_RULE_COLUMN, pa.string())]
        for role in config.roles:
            made += [
                pa.field(role.sentences, pa.list_(pa.string())),
                pa.field(role.concepts, pa.list_(pa.list_(leaf, dim))),
                pa.field(role.truncated, pa.list_(pa.int32())),
            ]
        kept = []
        for field in raw:
            if field.name in gone:
                continue
            if field.name == LANG_COLUMN and config.inputs.lang_column == LANG_COLUMN:
                field = field.with_name(LANG_GIVEN_COLUMN)
            kept.append(field)
        self._check(kept, made)
        ids = [field for field in kept if field.name == ID_COLUMN]
        self.schema = pa.schema([*ids, *(field for field in kept if field.name != ID_COLUMN), *made])

    def check_writable(self) -> None:
        """:raises ConfigError: Parquet has no such type."""
        for field in self.schema:
            try:
                empty = pa.schema([field]).empty_table()
                pq.write_table(empty, pa.BufferOutputStream())
            except (pa.ArrowException, TypeError) as ex:
                raise ConfigError(
                    f"The input's column `{field.name}` is {field.type}, which parquet cannot hold: leave it out "
                    f"(--drop-column {field.name}), or keep it as text (--as-text {field.name})."
                ) from ex

    @property
    def embedding_columns(self) -> list[str]:
        return [role.concepts for role in self._config.roles]

    def assemble(self, raw: pa.Table, made: Mapping[str, pa.Array]) -> pa.Table:
        """Joins what the input has and what was made of it, and adds the split of each row.

        :param raw: In the input's schema.
        :param made: By name, :data:`SPLIT_COLUMN` among them.
        """
        columns = []
        for name in self.schema.names:
            source = LANG_COLUMN if name == LANG_GIVEN_COLUMN and name not in raw.schema.names else name
            columns.append(made[name] if name in made else raw.column(source))
        table = pa.table(columns, schema=self.schema)
        return table.append_column(SPLIT_COLUMN, made[SPLIT_COLUMN])

    def _check(self, kept: list[pa.Field], made: list[pa.Field]) -> None:
        names = [field.name for field in (*kept, *made)]
        for name in (_PATH_COLUMN, SPLIT_COLUMN):
            if name in names:
                use = f"say that it holds splits (--split-column {name}), or " if name == _PATH_COLUMN else ""
                raise ConfigError(
                    f"The input has a column `{name}`, and files are laid out by split: {use}leave it out "
                    f"(--drop-column {name})."
                )
        for name in names:
            if names.count(name) == 1:
                continue
            if name == LANG_COLUMN:
                raise ConfigError(
                    "The input has a column `lang`: say that it holds languages (--lang-column lang), or leave it out "
                    "(--drop-column lang)."
                )
            raise ConfigError(
                f"The input has a column `{name}`, which is made here: leave it out (--drop-column {name})."
            )
