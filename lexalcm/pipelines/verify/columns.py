"""Which columns of each file are checked, and what is wrong with a file's columns.

Shapes: N vectors that were looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import check_text_type, embedding_width, is_text
from lexalcm.data.discover import DataFile
from lexalcm.data.filters import check_columns, columns_of, filters_on_rows
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.peek_width import first_widths
from lexalcm.data.sources import EMBEDDING_COLUMN, SourceConfig
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import DataError, near_match
from lexalcm.pipelines.verify.files import without_path
from lexalcm.pipelines.verify.problems import Problem

ID_COLUMN: Final = "id"
_EMBEDDING_SUFFIX: Final = "_sonar_emb"


@dataclass(frozen=True)
class Side:
    """A column of embeddings and that of their text; ``None`` for one that is not there or not of its type."""

    embedding_column: str | None

    text_column: str | None

    width: int
    """Of its vectors: what is expected, or what all of the file have instead."""


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """A file, and what of it can be checked."""

    index: int
    """Among all files of the dataset."""

    source_index: int

    file: DataFile

    source: SourceConfig

    sides: tuple[Side, ...]
    """One, or the source's and the target's."""

    id_column: str | None

    columns: tuple[str, ...]
    """Those that are looked into; all others are only read."""

    can_filter: bool
    """Whether the source's filters find their columns."""


def with_usual_columns(source: SourceConfig, files: Sequence[DataFile], *, needs_text: bool) -> SourceConfig:
    """Names the columns of text and ids that a source leaves open, where some of its files have the usual ones.

    :param needs_text: Name Meta's column of text for its column of embeddings even where no file has it.
    """
    names = {name for file in files for name in file.schema.names}

    def text_of(column: str | None, *usual: str) -> str | None:
        own = [] if column is None else [column.removesuffix(_EMBEDDING_SUFFIX)]
        return next((name for name in (*own, *usual) if name in names and name != column), None)

    usual = () if source.target_column is not None else (TEXT_COLUMN,)
    text = source.text_column or text_of(source.embedding_column, *usual)
    if text is None and needs_text and source.embedding_column == EMBEDDING_COLUMN:
        text = TEXT_COLUMN
    target_text = source.target_text_column or text_of(source.target_column)
    is_id = any(_is_id(file.schema, ID_COLUMN) for file in files)
    return replace(
        source,
        text_column=text,
        target_text_column=target_text,
        id_column=source.id_column or (ID_COLUMN if is_id else None),
    )


@dataclass(frozen=True)
class FoundWidth:
    """Of a file's vectors, as far as its type or its first rows tell."""

    of_most: int | None = None

    of_all: int | None = None
    """``None`` if they differ, or there are none."""


def width_of(file: DataFile, column: str, files: OpenFiles) -> FoundWidth:
    """Looks at a file's type, and where that leaves the width open, at its first rows."""
    if file.schema.names.count(column) != 1:
        return FoundWidth()
    try:
        width = embedding_width(file.schema.field(column).type, file=file.path, column=column)
        if width is not None:
            return FoundWidth(width, width)
        widths = first_widths(file, column, files)
    except (DataError, pa.ArrowException, ValueError):
        # What is wrong is told when the columns are checked, or the rows.
        return FoundWidth()
    if not len(widths):
        return FoundWidth()
    most = int(np.bincount(widths).argmax())
    return FoundWidth(most, most if (widths == most).all() else None)


def usual_width(files: Iterable[tuple[DataFile, int | None]]) -> int | None:
    """The width that files with most of the rows have."""
    rows: Counter[int] = Counter()
    for file, width in files:
        if width is not None:
            rows[width] += sum(file.rows)
    return rows.most_common(1)[0][0] if rows else None


def check_file(
    file: DataFile,
    source: SourceConfig,
    *,
    index: int,
    source_index: int,
    must_have_id: bool,
    width: int,
    found: Mapping[str, FoundWidth],
) -> tuple[CheckedFile, list[Problem]]:
    """Checks a file's columns.

    :param source: With the columns that are to be checked.
    :param must_have_id: Whether a file without the column of ids is broken.
    :param width: That is expected.
    :param found: By embedding column, what :func:`width_of` has found.
    """
    problems: list[Problem] = []

    def tell(kind: str, column: str | None, reason: str) -> None:
        problems.append(Problem(kind=kind, source=source.name, file=file.relative, column=column, reason=reason))

    def usable(column: str | None, check: Callable[[pa.DataType], object]) -> str | None:
        """The column, unless something is wrong with it."""
        if column is None:
            return None
        count = file.schema.names.count(column)
        if count == 0:
            tell("missing_column", column, _missing(column, file.schema.names))
            return None
        if count > 1:
            tell("repeated_column", column, f"there are {count} columns called `{column}`")
            return None
        try:
            check(file.schema.field(column).type)
        except DataError as error:
            tell("column_type", column, without_path(str(error), file.path))
            return None
        return column

    sides = []
    for vectors, text in _sides(source):
        vectors = usable(vectors, lambda kind, c=vectors: embedding_width(kind, file=file.path, column=c))
        text = usable(text, lambda kind, c=text: check_text_type(kind, file=file.path, column=str(c)))
        own = width if vectors is None else found[vectors].of_all or width
        if own != width:
            reason = f"column `{vectors}` holds vectors that are {own} wide, but {width} is expected"
            tell("file_width", vectors, reason)
        sides.append(Side(vectors, text, own))
    ids = source.id_column
    if must_have_id:
        ids = usable(ids, lambda kind: _check_id_type(kind, str(ids)))
    elif ids is not None and not _is_id(file.schema, ids):
        ids = None
    filtered = sorted(
        {c for f in filters_on_rows(source.filters, file.partitions) for c in columns_of(f)} - file.partitions.keys()
    )
    can_filter = True
    try:
        check_columns(source.filters, file.schema.names, file.partitions, file=file.path)
        filtered = [c for c in filtered if usable(c, lambda kind: None)]
    except DataError as error:
        tell("filter", None, without_path(str(error), file.path))
        can_filter, filtered = False, []
    named = [c for side in sides for c in (side.embedding_column, side.text_column)]
    columns = tuple(dict.fromkeys(c for c in (*named, ids, *filtered) if c is not None))
    checked = CheckedFile(
        index=index,
        source_index=source_index,
        file=file,
        source=source,
        sides=tuple(sides),
        id_column=ids,
        columns=columns,
        can_filter=can_filter,
    )
    return checked, problems


def embedding_columns(source: SourceConfig) -> list[str]:
    """One, or the source's and the target's."""
    return [vectors for vectors, _ in _sides(source)]


def essential_columns(source: SourceConfig) -> set[str]:
    """The columns that each file must have."""
    return {c for side in _sides(source) for c in side if c is not None}


def _sides(source: SourceConfig) -> list[tuple[str, str | None]]:
    first = (str(source.embedding_column), source.text_column)
    return [first] if source.target_column is None else [first, (source.target_column, source.target_text_column)]


def _is_id(schema: pa.Schema, column: str) -> bool:
    return schema.names.count(column) == 1 and _names_documents(schema.field(column).type)


def _names_documents(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_text(plain) or pa.types.is_integer(plain)


def _check_id_type(kind: pa.DataType, column: str) -> None:
    if not _names_documents(kind):
        raise DataError(f"column `{column}` must be of strings or integers, but is {kind}.")


def _missing(column: str, names: list[str]) -> str:
    other_case = [name for name in names if name.lower() == column.lower()]
    like = f' Did you mean "{other_case[0]}"?' if other_case else near_match(column, names)
    return f"no column `{column}`.{like} Columns: {', '.join(names)}"
