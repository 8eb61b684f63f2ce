"""What an input holds and how it is shared out, as plain data that workers on other machines read."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from stopes.utils.sharding.abstract_shards import BatchFormat, InputShardingConfig, Shard

from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.prepare.raw_files import RawFile, changes_between
from lexalcm.pipelines.prepare.raw_shards import Piece, RawShard
from lexalcm.pipelines.prepare.raw_streams import Mark

_PLAIN: Final = ("num_documents", "num_bytes", "num_blank", "id_column", "split_column")


@dataclass(frozen=True, kw_only=True)
class RawPlan:
    """An input that was looked through."""

    num_documents: int

    num_bytes: int
    """Of documents, unpacked, about."""

    num_blank: int
    """Documents without text in files of text; those of parquet and Arrow files are not read for that."""

    schema: pa.Schema
    """``id``, which is text, and the other columns."""

    text_columns: tuple[str, ...]

    id_column: str | None
    """What the input calls its ids; ``None``: they are made, of the file and the document's number in it."""

    split_column: str | None
    """That names the split of each document: the one asked for, else ``split`` where the paths of files tell it."""

    files: tuple[RawFile, ...]

    shards: tuple[RawShard, ...]

    def changes_since(self, before: RawPlan) -> list[str]:
        """What is another in this input than in that of ``before``, a line each; empty if nothing."""
        return changes_between(before.files, self.files)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        numbers = {file.path: number for number, file in enumerate(self.files)}
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "schema": base64.b64encode(self.schema.serialize()).decode(),
            "text_columns": list(self.text_columns),
            "files": [asdict(file) for file in self.files],
            "shards": [
                {
                    "first_document": shard.first_document,
                    "num_documents": shard.num_documents,
                    "num_bytes": shard.num_bytes,
                    "pieces": [
                        [numbers[p.file.path], p.first, p.count, *(astuple(p.mark) if p.mark else ())]
                        for p in shard.pieces
                    ],
                }
                for shard in self.shards
            ],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> RawPlan:
        """The reverse of :meth:`to_json`.

        :raises DataError: It is something else.
        """
        try:
            fields = {name: data[name] for name in _PLAIN}
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(data["schema"])))
            files = tuple(RawFile(**file) for file in data["files"])
            texts = tuple(data["text_columns"])
            shards = tuple(
                RawShard(
                    index=index,
                    first_document=shard["first_document"],
                    num_documents=shard["num_documents"],
                    num_bytes=shard["num_bytes"],
                    pieces=tuple(
                        Piece(files[number], first, count, Mark(*mark) if mark else None)
                        for number, first, count, *mark in shard["pieces"]
                    ),
                    schema=schema,
                    text_columns=texts,
                    id_column=data["id_column"],
                )
                for index, shard in enumerate(data["shards"])
            )
        except (KeyError, TypeError, ValueError, IndexError, pa.ArrowException) as ex:
            raise DataError(f"The plan of the input is damaged ({ex!r}): prepare into a new folder.") from None
        return RawPlan(**fields, schema=schema, text_columns=texts, files=files, shards=shards)


@dataclass
class RawShardsConfig(InputShardingConfig):
    """stopes' form of an input: ``input_file`` is where the plan lies, as JSON."""

    batch_format: BatchFormat = BatchFormat.ARROW

    def __post_init__(self) -> None:
        # stopes would evaluate the text of a filter as code.
        for name in ("filters_expr", "take"):
            if getattr(self, name) is not None:
                raise ConfigError(f"`{name}` is not for raw documents, but is {getattr(self, name)!r}.")
        if self.skip_n_rows_per_shard:
            raise ConfigError("`skip_n_rows_per_shard` is not for raw documents: a shard is done whole.")
        self.filter = None

    def make_shards(self, **kwargs: Any) -> list[Shard]:
        return list(RawPlan.from_json(json.loads(Path(self.input_file).read_text(encoding="utf-8"))).shards)
