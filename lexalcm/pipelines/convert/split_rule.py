"""Decides how the split of a row is known: by the path, by a column, or by hash."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from lexalcm.data.decode import is_text
from lexalcm.data.discover import DataFile, same_split
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.split_by_id import VALIDATION_SHARE, shares_of_splits
from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.convert.config import BY_HASH, SEED, ConvertConfig
from lexalcm.pipelines.convert.splits import SplitRule

SPLIT: Final = "split"
"""The partition and the column that tell it."""


def split_rule(files: list[DataFile], id_column: str | None, config: ConvertConfig) -> SplitRule:
    """What the options say, else what the source says, else a draw by hash.

    :raises ConfigError: An option would change nothing, or does not go with the source.
    :raises DataError: The source contradicts itself.
    """
    rule = _rule_of_source(files, config)
    if rule is None:
        share = VALIDATION_SHARE if config.validation_share is None else config.validation_share
        shares = shares_of_splits(validation=share)
        return SplitRule("hash", id_column, shares, SEED if config.seed is None else config.seed)
    for option, value in (("--validation-share", config.validation_share), ("--seed", config.seed)):
        if value is not None:
            raise ConfigError(
                f"{option} is for splits drawn by hash, but they are {rule.describe()}.\n"
                f"Leave it out, or draw splits anew by --split-column {BY_HASH}."
            )
    return rule


def _rule_of_source(files: list[DataFile], config: ConvertConfig) -> SplitRule | None:
    if config.split_column == BY_HASH:
        return None
    if config.split_column is not None:
        _check_split_column(files, config.split_column)
        return SplitRule("column", config.split_column)
    with_split = [file for file in files if file.split is not None]
    if with_split:
        without = next((file for file in files if file.split is None), None)
        if without is not None:
            raise DataError(
                f"{without.path} lies in no split, but {with_split[0].path} lies in `{with_split[0].split}`.\n"
                f"Convert it by itself, name a column of splits (--split-column NAME), or draw splits anew "
                f"(--split-column {BY_HASH})."
            )
        return SplitRule("path")
    with_column = [file for file in files if SPLIT in file.schema.names and _is_text_column(file, SPLIT)]
    if not with_column:
        return None
    if len(with_column) < len(files):
        other = next(file for file in files if file not in with_column)
        raise DataError(
            f"{with_column[0].path} has a text column `{SPLIT}`, but {other.path} has none.\n"
            f"Convert them apart, or draw splits by hash whatever the column says: --split-column {BY_HASH}."
        )
    return SplitRule("column", SPLIT)


def _check_split_column(files: list[DataFile], column: str) -> None:
    for file in files:
        if column in file.partitions:
            raise ConfigError(
                f"--split-column: `{column}` is a partition of the path of {file.path}, not a column.\n"
                f"A partition called split is followed without the option."
            )
        if column not in file.schema.names:
            raise DataError(
                f"{file.path} has no column `{column}`, which --split-column names.\n"
                f"Columns: {', '.join(file.schema.names)}."
            )
        if not _is_text_column(file, column):
            raise DataError(f"{file.path}: column `{column}` must be of text, but is {file.schema.field(column).type}.")


def _is_text_column(file: DataFile, column: str) -> bool:
    kind = file.schema.field(column).type
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def column_left_out(files: list[DataFile], rule: SplitRule, notices: list[str]) -> str | None:
    """The column that carries the split, which the folder then tells.

    :param notices: What to tell the user is added to it.
    """
    if rule.kind == "column":
        return rule.column
    if rule.kind == "hash" or not any(SPLIT in file.schema.names for file in files):
        return None
    if all(SPLIT in file.partitions or _repeats_the_split(file) for file in files):
        notices.append("Column `split` is left out: the folder tells it.")
        return SPLIT
    notices.append("Column `split` stays: it tells another thing than the paths.")
    return None


def _repeats_the_split(file: DataFile) -> bool:
    if SPLIT not in file.schema.names:
        return True
    if not _is_text_column(file, SPLIT):
        return False
    reader = OpenFiles()
    found: set[str | None] = set()
    for group, rows in enumerate(file.rows):
        if rows:
            found.update(reader.read_groups(file, [group], [SPLIT]).column(SPLIT).unique().to_pylist())
    return all(value is not None and file.split is not None and same_split(value, file.split) for value in found)
