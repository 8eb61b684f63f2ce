"""The one pass over an input: counts, types, ids, places."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from lexalcm.data.discover import DataWarning
from lexalcm.errors import ConfigError, DataError, near_match
from lexalcm.pipelines.prepare.raw_arrow import open_rows
from lexalcm.pipelines.prepare.raw_config import InputConfig
from lexalcm.pipelines.prepare.raw_documents import has_json_types, is_rows, read_documents
from lexalcm.pipelines.prepare.raw_files import RawFile, find_files
from lexalcm.pipelines.prepare.raw_ids import IdCheck
from lexalcm.pipelines.prepare.raw_marks import Marks
from lexalcm.pipelines.prepare.raw_plan import RawPlan
from lexalcm.pipelines.prepare.raw_schema import ID_COLUMN, PLACE_COLUMN, SchemaFinder, check_usable
from lexalcm.pipelines.prepare.raw_shards import Piece, RawShard
from lexalcm.pipelines.prepare.raw_streams import open_stream

_SPLIT_COLUMN: Final = "split"
_PROGRESS_EVERY: Final = 512
_IDS_AT_A_TIME: Final = 4096


class InputPass:
    """Looks through the files of an input, and then knows all that a plan holds."""

    def __init__(self, config: InputConfig, progress: Callable[[int, int], None] | None) -> None:
        self._config = config
        self._progress = progress or (lambda done, total: None)
        self._files = find_files(config.paths, config.format)
        self._size = sum(file.size for file in self._files)
        self._finder = SchemaFinder(config.text_columns, config.drop_columns, config.as_text_columns)
        # Ids that are to be left out are made anew.
        self._id_name = config.id_column or (None if ID_COLUMN in config.drop_columns else ID_COLUMN)
        self._ids = IdCheck()
        self._marks = Marks()
        self._first_rows: list[int] = []
        self._overridden: set[str] = set()
        self.num_documents = 0
        self.num_bytes = 0
        self.num_blank = 0

    def run(self) -> None:
        """:raises DataError: See :func:`~lexalcm.pipelines.prepare.inputs.plan_inputs`."""
        done = 0
        for file in self._files:
            self._first_rows.append(self.num_documents)
            for column in file.columns:
                self._finder.see_type(column, pa.string(), file.name)
            (self._look_at_rows if is_rows(file) else self._look_at_text)(file, done)
            self._finder.end_file(file.name, has_documents=self.num_documents > self._first_rows[-1])
            done += file.size
            self._progress(done, self._size)
        if not self.num_documents:
            sizes = ", ".join(f"{file.path} ({file.size:,} bytes)" for file in self._files[:3])
            more = f" and {len(self._files) - 3:,} more files" if len(self._files) > 3 else ""
            raise DataError(f"There is no document in {sizes}{more}.")

    def plan(self, num_shards: int) -> RawPlan:
        """
        :raises DataError: Types do not go together, a column is missing, or ids come twice.
        """
        config = self._config
        types = self._finder.columns()
        unknown = sorted({*config.drop_columns, *config.as_text_columns} - self._finder.dropped - types.keys())
        if unknown:
            raise ConfigError(
                f"The input has no column `{unknown[0]}` (--drop-column or --as-text), but: "
                f"{', '.join(types)[:300]}.{near_match(unknown[0], types)}"
            )
        id_column = self._id_name if config.id_column or self._id_name in types else None
        asked = {"lang-column": config.lang_column, "split-column": config.split_column, "id-column": id_column}
        check_usable(types, self._finder, asked)
        if id_column not in (None, ID_COLUMN) and ID_COLUMN in types:
            raise DataError(
                f"The input has a column `{ID_COLUMN}`, but `{id_column}` (--id-column) is to be called so.\n"
                f"Leave it out (--drop-column {ID_COLUMN})."
            )
        by_path = any(_SPLIT_COLUMN in file.columns for file in self._files) and _SPLIT_COLUMN in types
        others = [(name, kind) for name, kind in types.items() if name != id_column]
        schema = pa.schema([(ID_COLUMN, pa.string()), *others])

        def shard(index: int, first: int, stop: int) -> RawShard:
            return RawShard(
                index=index,
                first_document=first,
                num_documents=stop - first,
                num_bytes=self._byte_at(stop) - self._byte_at(first),
                pieces=self._pieces(first, stop),
                schema=schema,
                text_columns=config.text_columns,
                id_column=id_column,
            )

        def document(row: int) -> tuple[str, str]:
            found = next(iter(shard(0, row, row + 1)))
            return found[ID_COLUMN], found[PLACE_COLUMN]

        if id_column is not None:
            self._ids.check(id_column, document)
        starts = [*self._marks.cut(self.num_documents, self.num_bytes, num_shards), self.num_documents]
        return RawPlan(
            num_documents=self.num_documents,
            num_bytes=self.num_bytes,
            num_blank=self.num_blank,
            schema=schema,
            text_columns=config.text_columns,
            id_column=id_column,
            split_column=config.split_column or (_SPLIT_COLUMN if by_path else None),
            files=self._files,
            shards=tuple(shard(i, first, stop) for i, (first, stop) in enumerate(zip(starts, starts[1:]))),
        )

    def _look_at_text(self, file: RawFile, done: int) -> None:
        texts, id_name = self._config.text_columns, self._id_name
        base, names = self.num_bytes, ()
        with open_stream(file) as stream:
            for mark, fields in read_documents(stream, None, texts[0]):
                for column in file.columns:
                    if column in fields:
                        self._override(column, file)
                        del fields[column]
                if has_json_types(file):
                    self._finder.see_document(fields, file.name, mark.line)
                elif not names:
                    names = tuple(fields)
                    for column in names:
                        self._finder.see_type(column, pa.string(), file.name)
                values = (file.columns.get(text) or fields.get(text) for text in texts)
                self.num_blank += any(value is None or not value.strip() for value in values)
                if id_name is not None:
                    self._ids.see(file.columns.get(id_name, fields.get(id_name)), lambda: f"{file.name}:{mark.line}")
                self._marks.note(self.num_documents, base + mark.offset, mark)
                self.num_documents += 1
                if self.num_documents % _PROGRESS_EVERY == 0:
                    self._progress(done + min(stream.progress, file.size), self._size)
            self.num_bytes += stream.tell()

    def _look_at_rows(self, file: RawFile, done: int) -> None:
        with open_rows(file) as rows:
            for field in rows.schema:
                if rows.schema.names.count(field.name) > 1:
                    raise DataError(f"{file.path} has two columns `{field.name}`. Each needs a name of its own.")
                if field.name in file.columns:
                    self._override(field.name, file)
                else:
                    self._finder.see_type(field.name, field.type, file.name)
            groups = rows.groups()
            self._marks.note_rows(self.num_documents, self.num_bytes, groups)
            count = sum(num_rows for num_rows, _ in groups)
            if self._id_name is not None:
                self._look_at_ids(file, rows, count)
            self.num_documents += count
            self.num_bytes += sum(num_bytes for _, num_bytes in groups)

    def _look_at_ids(self, file: RawFile, rows: Any, count: int) -> None:
        name = self._id_name
        if name not in rows.schema.names or name in file.columns:
            self._ids.see_rows([file.columns.get(name)] * count, lambda number: f"{file.name}: row {number}")
            return
        first = 0
        for table in rows.batches(0, count, [name], _IDS_AT_A_TIME):
            self._ids.see_rows(table.column(0).to_pylist(), lambda number: f"{file.name}: row {first + number}")
            first += table.num_rows

    def _override(self, column: str, file: RawFile) -> None:
        if column not in self._overridden:
            self._overridden.add(column)
            warnings.warn(
                f"{file.path}: the path says `{column}={file.columns[column]}`, and the file has a column `{column}` "
                f"too; the path is taken.",
                DataWarning,
                stacklevel=2,
            )

    def _pieces(self, first: int, stop: int) -> tuple[Piece, ...]:
        pieces = []
        for number in range(bisect_right(self._first_rows, first) - 1, len(self._files)):
            start = self._first_rows[number]
            if start >= stop:
                break
            end = self._first_rows[number + 1] if number + 1 < len(self._files) else self.num_documents
            begin = max(first, start)
            if begin < min(stop, end):
                mark = None if is_rows(self._files[number]) else self._marks.before(begin, start)
                pieces.append(Piece(self._files[number], begin - start, min(stop, end) - begin, mark))
        return tuple(pieces)

    def _byte_at(self, row: int) -> int:
        return self._marks.byte_at(row, self.num_documents, self.num_bytes)
