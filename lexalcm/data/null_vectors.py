"""Reads row groups that Arrow before 26 cannot: those with a null where a vector of fixed size should be.

Python 3.10 has no newer Arrow. polars, which comes with fairseq2's parquet reader, decodes them.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from packaging.version import Version

from lexalcm.data.discover import DataFile

_ARROW_READS_THEM: Final = Version(pa.__version__) >= Version("26")


def may_be_null_vectors(error: BaseException) -> bool:
    """Tells whether a read may have failed for this reason alone."""
    return not _ARROW_READS_THEM and "Expected all lists to be of size" in str(error)


def read_rows(file: DataFile, columns: list[str], start: int, stop: int, schema: pa.Schema) -> pa.Table | None:
    """Reads rows ``start`` to ``stop`` of a file; ``None`` if they are damaged indeed."""
    import polars

    try:
        if isinstance(file.file_system, LocalFileSystem):
            frame = polars.scan_parquet(file.path, hive_partitioning=False)
        else:
            with file.file_system.open(file.path, "rb") as handle:
                frame = polars.read_parquet(handle, columns=columns, hive_partitioning=False).lazy()
        table = frame.select(columns).slice(start, stop - start).collect().to_arrow()
        return table.cast(pa.schema([schema.field(name) for name in table.column_names]))
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, pa.ArrowException):
        return None
