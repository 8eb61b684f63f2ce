"""What becomes of a file's columns: embeddings are stored anew, partitions of the path join, all others stay.

Shapes: R rows (documents) of a chunk, N vectors, C their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from lexalcm.data.decode import Vectors, check_text_type, embedding_width
from lexalcm.data.discover import DataFile
from lexalcm.data.rows import check_schema
from lexalcm.data.sources import SourceConfig
from lexalcm.data.validate import finite_and_nonzero
from lexalcm.errors import DataError
from lexalcm.pipelines.convert.config import ConvertConfig

_EMBEDDING_SUFFIX: Final = "_sonar_emb"
_LEAVES: Final = {"float16": pa.float16(), "float32": pa.float32()}


@dataclass(frozen=True)
class Side:
    """A column of embeddings and, where there is one, that of its sentences."""

    embedding: str

    text: str | None


def sides_of(file: DataFile, config: ConvertConfig) -> list[Side]:
    """The configured columns, and further pairs called ``X`` and ``X_sonar_emb``, as supervised data has.

    :raises DataError: A configured column is missing or of another type.
    """
    twice = sorted({name for name in file.schema.names if file.schema.names.count(name) > 1})
    if twice:
        raise DataError(f"{file.path} has several columns called `{twice[0]}`; all but one must be renamed.")
    hidden = {config.embedding_column, config.text_column} & file.partitions.keys()
    if hidden:
        raise DataError(f"{file.path}: `{min(hidden)}` is a partition of the path, but must be a column of the file.")
    if config.text_column is not None and config.text_column not in file.schema.names:
        raise DataError(
            f"{file.path} has no column `{config.text_column}` with the sentences of its embeddings.\n"
            f"Name it by --text-column, or convert data without text by --text-column none."
        )
    sides = [Side(config.embedding_column, config.text_column)]
    for name in file.schema.names:
        text = name.removesuffix(_EMBEDDING_SUFFIX)
        if text in (name, "") or name == config.embedding_column or name in file.partitions:
            continue
        if _is_embeddings(file, name):
            is_text = text in file.schema.names and text not in file.partitions and _is_sentences(file, text)
            sides.append(Side(name, text if is_text else None))
    return sides


def _is_embeddings(file: DataFile, column: str) -> bool:
    try:
        embedding_width(file.schema.field(column).type, file=file.path, column=column)
    except DataError:
        return False
    return True


def _is_sentences(file: DataFile, column: str) -> bool:
    try:
        check_text_type(file.schema.field(column).type, file=file.path, column=column)
    except DataError:
        return False
    return True


def check_columns(file: DataFile, sides: list[Side], id_column: str | None, concept_dim: int | None) -> int | None:
    """Checks a file's columns, and returns the width of its vectors as far as it is known then.

    :raises DataError: A column is missing or of another type, or vectors have another width than ``concept_dim``.
    """
    for side in sides:
        source = SourceConfig(embedding_column=side.embedding, text_column=side.text, id_column=id_column)
        concept_dim = check_schema(file, source, concept_dim) or concept_dim
    return concept_dim


def output_schema(
    file: DataFile, sides: list[Side], *, dtype: str, concept_dim: int, left_out: str | None, partitions: list[str]
) -> pa.Schema:
    """The schema of what becomes of a file: its own, in its order, with what changes changed.

    :param left_out: The column that carries the split.
    :param partitions: Those of the path that become columns of text; one that is a column too replaces it in its place.
    """
    embeddings = {side.embedding for side in sides}
    fields = []
    for field in file.schema:
        if field.name == left_out:
            continue
        if field.name in partitions:
            field = pa.field(field.name, pa.string())
        elif field.name in embeddings:
            field = field.with_type(pa.list_(pa.list_(_leaf(field.type, dtype), concept_dim)))
        fields.append(field)
    fields += [pa.field(name, pa.string()) for name in partitions if name not in file.schema.names]
    return pa.schema(fields, metadata=file.schema.metadata)


def _leaf(kind: pa.DataType, dtype: str) -> pa.DataType:
    if dtype != "keep":
        return _LEAVES[dtype]
    while not pa.types.is_floating(kind):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    return pa.float16() if pa.types.is_float16(kind) else pa.float32()


def take_vectors(vectors: Vectors, keep_R: np.ndarray, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """The embeddings of the rows to keep, which have none that is bad, as Arrow stores them.

    :param keep_R: bool ``[R]``.
    :param kind: ``list<fixed_size_list<leaf, C>>``.
    :returns: The column, and int64 indices of kept rows whose values the type cannot hold: a component overflows, or a
        vector becomes zero.
    """
    leaf = np.dtype(kind.value_type.value_type.to_pandas_dtype())
    lengths = vectors.lengths[keep_R]
    given = vectors.values if keep_R.all() else vectors.values[np.repeat(keep_R, vectors.lengths)]
    with np.errstate(over="ignore", under="ignore"):
        values = given.astype(leaf, copy=False)
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    bad_rows = np.zeros(0, np.int64)
    if leaf.itemsize < given.dtype.itemsize:
        finite, nonzero = finite_and_nonzero(values)
        bad_rows = np.unique(np.searchsorted(offsets, np.flatnonzero(~(finite & nonzero)), side="right") - 1)
    width = kind.value_type.list_size
    stored = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind.value_type.value_type), width)
    return pa.ListArray.from_arrays(pa.array(offsets), stored).cast(kind), bad_rows


def take_rows(column: pa.ChunkedArray, keep_R: np.ndarray) -> pa.ChunkedArray:
    """Rows of any type of column, in order."""
    if keep_R.all():
        return column
    try:
        return column.filter(pa.array(keep_R))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
        # Not every type has such a kernel, but every one can be sliced.
        edges = np.flatnonzero(np.diff(keep_R.astype(np.int8), prepend=0, append=0))
        runs = [column.slice(a, b - a) for a, b in edges.reshape(-1, 2).tolist()]
        return pa.chunked_array([chunk for run in runs for chunk in run.chunks], column.type)
