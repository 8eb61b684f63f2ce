"""How the schemas of a source's files differ from what most of them have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from lexalcm.data.discover import DataFile
from lexalcm.data.sources import SourceConfig
from lexalcm.pipelines.verify.problems import Problem


def drift(source: SourceConfig, files: Sequence[DataFile], essential: Collection[str]) -> Iterator[Problem]:
    """Yields one problem a file and column.

    :param essential: Columns that are checked by themselves; of these only another float type is told, as a note.
    """
    columns: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for file in files:
        for name in set(file.schema.names):
            columns[name][_kind(file, name)] += 1
    usual = {name: counts.most_common(1)[0][0] for name, counts in columns.items()}
    for file in files:
        names = file.schema.names

        def problem(column: str, reason: str, kind: str = "schema_drift") -> Problem:
            return Problem(kind=kind, source=source.name, file=file.relative, column=column, reason=reason)

        for name in dict.fromkeys(names):
            own, num_have = _kind(file, name), columns[name].total()
            if name in file.partitions:
                kind = file.schema.field(names.index(name)).type
                reason = f"`{name}` is a partition of the path (text) and a column of the file ({kind})"
                yield problem(name, reason, "partition_in_file")
            elif name in essential:
                floats, most = _floats(own), _floats(usual[name])
                if floats != most and floats is not None and most is not None:
                    yield problem(name, f"`{name}` is of {floats}, but in most files of {most}", "float_type")
            elif names.count(name) > 1:
                yield problem(name, f"there are {names.count(name)} columns called `{name}`")
            elif own != usual[name]:
                yield problem(name, f"`{name}` is {own}, but in most files {usual[name]}")
            elif 2 * num_have <= len(files):
                yield problem(name, f"`{name}` is a column here, but not in {len(files) - num_have} other file(s)")
        for name, counts in columns.items():
            if name not in (*names, *essential, *file.partitions) and 2 * counts.total() > len(files):
                yield problem(name, f"no column `{name}`, which {counts.total()} other file(s) have")


def _kind(file: DataFile, name: str) -> str:
    return plain_type(file.schema.field(file.schema.names.index(name)).type)


def plain_type(kind: pa.DataType) -> str:
    """A type's text without what makes no difference to its values: width of offsets, dictionaries, names of items."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list<{plain_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {plain_type(field.type)}' for field in kind)}>"
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return "binary"
    return str(kind)


def _floats(kind: str) -> str | None:
    """The float type at the bottom of a list of vectors."""
    leaf = kind.replace("list<", "").rstrip(">")
    return leaf if leaf in ("halffloat", "float", "double") else None
