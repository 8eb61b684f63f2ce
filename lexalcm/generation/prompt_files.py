"""Files of prompts: text lines, JSON lines, safetensors and parquet.

Shapes: T concepts of a prompt, C dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.discover import DataFile
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import ConfigError, DataError, near_match
from lexalcm.generation.prompts import InputPrompt, PromptRow, number_prompts

ID_COLUMN: Final = "id"
LANG_COLUMN: Final = "lang"

_FIELDS: Final = ("id", "text", "sentences", "concepts", "lang")


@dataclass(frozen=True)
class PromptFile:
    """An input, which can be read several times; parquet may also be a folder or a URL.

    - ``.txt``: a prompt a line, blank lines passed over; the id is the number of the line, from 1.
    - ``.jsonl``: an object a line, with ``text``, ``sentences`` or ``concepts`` (or the last two together), and perhaps
      ``id`` and ``lang``; fields of other names are passed over. Without an id the number of the line is it.
    - ``.safetensors``: a tensor ``[T, C]`` or ``[C]`` a prompt; its name is the id.
    - ``.parquet``: a row a prompt, in every layout that datasets have; the id is that of the column ``id``, else the
      dataset's own, ``source:file:row``.
    """

    path: str

    column: str | None = None
    """Parquet's column of embeddings; by default Meta's."""

    id_column: str | None = None
    """Parquet's column of ids; by default ``id``, where there is one."""

    def check(self) -> None:
        """
        :raises ConfigError: It is of no known kind, or an option is for another kind.
        :raises DataError: It is not there.
        """
        kind = self._kind()
        for option, value in (("--column", self.column), ("--id-column", self.id_column)):
            if value is not None and kind != ".parquet":
                raise ConfigError(f"`{option}` is for parquet, but the input is {self.path}.")
        if kind != ".parquet" and not Path(self.path).is_file():
            raise DataError(f"The input {self.path} does not exist (looked at {Path(self.path).resolve()}).")

    def __iter__(self) -> Iterator[InputPrompt]:
        """Yields the prompts in order.

        :raises DataError: The file is damaged, or a prompt cannot be used.
        """
        self.check()
        return number_prompts(_READERS[self._kind()](self))

    def _kind(self) -> str:
        suffix = Path(self.path).suffix.lower()
        if suffix in _READERS:
            return suffix
        if Path(self.path).is_dir() or "://" in self.path:
            return ".parquet"
        raise ConfigError(
            f"The input {self.path} must end in {', '.join(_READERS)}, or be a folder with parquet files, so that it "
            f"is known what it holds."
        )


def _read_lines(file: PromptFile) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    with open(file.path, encoding="utf-8-sig", newline="\n") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.strip()
        except UnicodeDecodeError as ex:
            raise DataError(f"{file.path} is not UTF-8 text: {ex.reason} at byte {ex.start}.") from None


def _read_text(file: PromptFile) -> Iterator[PromptRow]:
    for number, line in _read_lines(file):
        yield PromptRow(where=f"{file.path}:{number}", place=str(number), text=line)


def _read_json_lines(file: PromptFile) -> Iterator[PromptRow]:
    for number, line in _read_lines(file):
        where = f"{file.path}:{number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as ex:
            raise DataError(f"{where} is not JSON: {ex}. Each line must be one object.") from None
        if not isinstance(fields, dict):
            raise DataError(f"{where} must be an object with `text`, `sentences` or `concepts`, but is {line[:60]}.")
        yield _row_of(fields, where, str(number))


def _row_of(fields: dict[str, Any], where: str, place: str) -> PromptRow:
    # Other fields are passed over, but for one that may be meant to name the language: the default would be taken.
    for name in fields:
        if "lang" not in fields and (meant := near_match(name, ("lang",))):
            raise DataError(f"{where}: `{name}` is not a field of a prompt.{meant}")
    given = {name: fields[name] for name in _FIELDS if fields.get(name) is not None}
    said = sorted(given.keys() & {"text", "sentences", "concepts"})
    if said not in (["text"], ["sentences"], ["concepts"], ["concepts", "sentences"]):
        found = f"has {' and '.join(f'`{name}`' for name in said)}" if said else f"has {', '.join(fields) or 'nothing'}"
        hints = "" if said else "".join(near_match(name, ("text", "sentences", "concepts")) for name in fields)
        raise DataError(
            f"{where} must have `text`, or `sentences`, or `concepts` (with `sentences` where known), but {found}.{hints}"
        )
    for name in ("text", "lang"):
        if name in given and not isinstance(given[name], str):
            raise DataError(f"{where}: `{name}` must be a text, but is {str(given[name])[:60]}.")
    name = given.get("id")
    if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int)) or name == ""):
        raise DataError(f"{where}: `id` must be a text or a whole number, but is {str(name)[:60]!r}.")
    sentences = given.get("sentences")
    if sentences is not None and not (isinstance(sentences, list) and all(isinstance(s, str) for s in sentences)):
        raise DataError(f"{where}: `sentences` must be a list of texts, but is {str(sentences)[:60]}.")
    return PromptRow(
        where=where,
        place=place,
        id=None if name is None else str(name),
        text=given.get("text"),
        sentences=None if sentences is None else tuple(sentences),
        concepts=None if "concepts" not in given else _numbers(given["concepts"], where),
        lang=given.get("lang"),
    )


def _numbers(value: object, where: str) -> np.ndarray:
    try:
        concepts = np.asarray(value)
    except ValueError:  # lists of several lengths
        concepts = np.asarray(None)
    if concepts.dtype.kind not in "fiu":
        raise DataError(f"{where}: `concepts` must be a list of vectors of one length, numbers all of them.")
    return concepts


def _read_safetensors(file: PromptFile) -> Iterator[PromptRow]:
    try:
        with safe_open(file.path, framework="pt") as tensors:
            for name in tensors.keys():
                where = f"{file.path}: `{name}`"
                tensor = tensors.get_tensor(name)
                if not tensor.is_floating_point():
                    raise DataError(f"{where} must hold floats, but is of {str(tensor.dtype).removeprefix('torch.')}.")
                if tensor.element_size() < 2:  # scaled or packed numbers mean nothing without what unpacks them
                    raise DataError(
                        f"{where} is of {str(tensor.dtype).removeprefix('torch.')}: store 16 bits at least."
                    )
                concepts = tensor.to(torch.float32).numpy()
                yield PromptRow(
                    where=where, place=name, id=name, concepts=concepts[None] if concepts.ndim == 1 else concepts
                )
    except (SafetensorError, OSError, KeyError) as ex:
        # The last one: types that torch does not have.
        raise DataError(f"{file.path} is not a safetensors file of concepts: {ex}.") from None


def _read_parquet(file: PromptFile) -> Iterator[PromptRow]:
    column = file.column or EMBEDDING_COLUMN
    found = ConceptParquetDataset(ConceptParquetConfig(path=file.path, embedding_column=column))
    files = {f.path: f for source in found.files(None) for f in source.files}
    named = {"text_column": TEXT_COLUMN, "id_column": file.id_column or ID_COLUMN}
    there = {
        field: name
        for field, name in named.items()
        if (field == "id_column" and file.id_column is not None) or all(name in f.schema.names for f in files.values())
    }
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=file.path, embedding_column=column, **there))
    extra = _ExtraColumns(OpenFiles(), files, there.get("id_column"))
    for document in dataset.documents():
        name, lang = extra.of(document.file, document.row)
        yield PromptRow(
            where=f"{document.file}: row {document.row}",
            place=document.id,
            id=name,
            sentences=None if document.sentences is None else tuple(document.sentences),
            concepts=document.concepts,
            lang=lang,
        )


class _ExtraColumns:
    """Ids and languages of the rows of one file after the other."""

    def __init__(self, open_files: OpenFiles, files: dict[str, DataFile], id_column: str | None) -> None:
        self._open_files = open_files
        self._files = files
        self._id_column = id_column
        self._path = ""
        self._values: dict[str, list[Any]] = {}

    def of(self, path: str, row: int) -> tuple[str | None, str | None]:
        if path != self._path:
            self._path, self._values = path, self._read(self._files[path])
        name = self._values[self._id_column][row] if self._id_column in self._values else None
        lang = self._values[LANG_COLUMN][row] if LANG_COLUMN in self._values else None
        if lang is None:
            lang = self._files[path].partitions.get(LANG_COLUMN)
        return None if name is None else str(name), lang

    def _read(self, file: DataFile) -> dict[str, list[Any]]:
        columns = [] if self._id_column is None else [self._id_column]
        if LANG_COLUMN in file.schema.names and LANG_COLUMN not in file.partitions:
            if pa.types.is_string(file.schema.field(LANG_COLUMN).type):
                columns.append(LANG_COLUMN)
        if not columns or not file.rows:
            return {}
        table = self._open_files.read_groups(file, range(len(file.rows)), columns)
        return {name: table.column(name).to_pylist() for name in columns}


_READERS: Final = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}
