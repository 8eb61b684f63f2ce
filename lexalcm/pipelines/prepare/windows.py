"""Documents of a shard in windows that fit in memory, however long documents are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from stopes.utils.sharding.abstract_shards import BatchFormat, Shard

from lexalcm.pipelines.prepare.inputs import RawShard

DOCUMENTS_AT_A_TIME: Final = 256
"""Whose sentences are batched together: thousands of them, sorted by length."""

_CHARACTERS_AT_A_TIME: Final = 2_000_000
"""About 20,000 sentences: 40 MB of concepts in half precision. One longer document is a window of its own."""

_READ_AT_A_TIME: Final = 16


@dataclass(kw_only=True)
class Windows(Shard):
    """A shard as stopes' mapper reads it. The same shard always has the same windows."""

    filter: None = None

    shard: RawShard

    def __exit__(self, *exception: object) -> None:
        """Nothing is open between windows."""

    def __iter__(self) -> Iterator[pa.Table]:
        return self.to_batches(None)

    def to_batches(
        self,
        batch_size: int | None,
        columns: list[str] | None = None,
        batch_format: BatchFormat = BatchFormat.ARROW,
    ) -> Iterator[pa.Table]:
        """Yields the windows in order, whatever ``batch_size`` says."""
        held: list[pa.Table] = []
        num_characters = 0
        for table in self.shard.to_batches(_READ_AT_A_TIME, batch_format=BatchFormat.ARROW):
            for row, size in enumerate(self._sizes(table)):
                full = len(held) >= DOCUMENTS_AT_A_TIME or num_characters + size > _CHARACTERS_AT_A_TIME
                if held and full:
                    yield pa.concat_tables(held).combine_chunks()
                    held, num_characters = [], 0
                held.append(table.slice(row, 1))
                num_characters += size
        if held:
            yield pa.concat_tables(held).combine_chunks()

    def _sizes(self, table: pa.Table) -> list[int]:
        """Characters of each document."""
        texts = (pc.fill_null(pc.utf8_length(table.column(name)), 0).to_pylist() for name in self.shard.text_columns)
        return [sum(lengths) for lengths in zip(*texts)]
