"""What will be written where, known before anything is: source files, their output, and the rule of splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from lexalcm.data.decode import is_text
from lexalcm.data.discover import DataFile, discover, find_files, read_footer
from lexalcm.data.peek_width import peek_width
from lexalcm.errors import DataError
from lexalcm.pipelines.convert.columns import Side, check_columns, output_schema, sides_of
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.output_names import output_names
from lexalcm.pipelines.convert.split_rule import SPLIT, column_left_out, split_rule
from lexalcm.pipelines.convert.splits import SplitRule, known_split

_ID: Final = "id"


@dataclass(frozen=True)
class FileJob:
    """One source file and what becomes of it."""

    file: DataFile

    name: str
    """Of the files that it becomes, one a split."""

    split: str | None
    """Where all its rows go; ``None``: each row has its own."""

    sides: list[Side]

    schema: pa.Schema
    """Of the output."""

    partitions: dict[str, str | None]
    """Those that become columns."""


@dataclass(frozen=True)
class Plan:
    """A conversion, ready to begin."""

    jobs: list[FileJob]

    rule: SplitRule

    concept_dim: int

    id_column: str | None

    damaged: dict[str, str]
    """Files that cannot be opened, and why; they are passed over."""

    notices: list[str]
    """What a user should know, each said once."""


def make_plan(config: ConvertConfig) -> Plan:
    """Reads the footers of the source and decides everything that does not depend on rows.

    :raises ConfigError: An option does not go with the source.
    :raises DataError: The source cannot be used.
    """
    files, damaged = _files(config)
    sides = [sides_of(file, config) for file in files]
    id_column = _id_column(files, config)
    width = config.concept_dim
    for file, pairs in zip(files, sides):
        width = check_columns(file, pairs, id_column, width) or width
    if not any(sum(file.rows) for file in files):
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise DataError(f"{config.source} has no documents: {files[0].path}{more} has no rows.")
    width = width or peek_width((file, config.embedding_column) for file in files)
    rule = split_rule(files, id_column, config)
    notices = _notices(files, rule)
    left_out = column_left_out(files, rule, notices)
    names = output_names(files, rule, config)
    jobs = []
    for file, pairs, name in zip(files, sides, names):
        partitions = dict(file.partitions)
        if rule.kind == "path":
            partitions.pop(SPLIT, None)
        schema = output_schema(
            file, pairs, dtype=config.dtype, concept_dim=width, left_out=left_out, partitions=list(partitions)
        )
        split = known_split(str(file.split), config.layout) if rule.kind == "path" else None
        jobs.append(FileJob(file, name, split, pairs, schema, partitions))
    leaves = {job.schema.field(config.embedding_column).type.value_type.value_type for job in jobs}
    if len(leaves) > 1:
        notices.append("Some files hold float16 and others float32, and stay so. --dtype makes them alike.")
    return Plan(jobs, rule, width, id_column, damaged, notices)


def _files(config: ConvertConfig) -> tuple[list[DataFile], dict[str, str]]:
    if not config.skip_damaged_files:
        return discover(config.source, config.embedding_column), {}
    files: list[DataFile] = []
    damaged: dict[str, str] = {}
    for found in find_files(config.source):
        try:
            files.append(read_footer(found, config.embedding_column))
        except DataError as ex:
            damaged[found.relative] = str(ex)
    if not files:
        reason = next(iter(damaged.values()), f"{config.source} holds no parquet file.")
        raise DataError(f"No file of {config.source} can be read: {reason}")
    return files, damaged


def _id_column(files: list[DataFile], config: ConvertConfig) -> str | None:
    if config.id_column is not None:
        return config.id_column
    kinds = [file.schema.field(_ID).type if _ID in file.schema.names else None for file in files]
    return _ID if all(kind is not None and (is_text(kind) or pa.types.is_integer(kind)) for kind in kinds) else None


def _notices(files: list[DataFile], rule: SplitRule) -> list[str]:
    notices = []
    for name in sorted({name for file in files for name in file.partitions}):
        file = next((f for f in files if name in f.partitions and name in f.schema.names), None)
        if file is not None:
            notices.append(
                f"`{name}` is a partition of the path (text) and a column of {file.path} "
                f"({file.schema.field(name).type}): the path's value is taken."
            )
    if rule.kind == "column" and any(file.split is not None for file in files):
        notices.append(f"Paths name splits too, but column `{rule.column}` was asked for.")
    return notices
