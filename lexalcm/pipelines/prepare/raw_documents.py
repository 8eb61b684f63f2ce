"""Reads the documents of a file of text, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lexalcm.pipelines.prepare.raw_files import RawFile
from lexalcm.pipelines.prepare.raw_json import json_array, json_lines
from lexalcm.pipelines.prepare.raw_streams import Mark, RawStream
from lexalcm.pipelines.prepare.raw_table_text import delimited, whole_text


def is_rows(file: RawFile) -> bool:
    """Tells whether a file holds rows of Arrow's types; all others are files of text."""
    return file.format in ("parquet", "arrow")


def has_json_types(file: RawFile) -> bool:
    """Tells whether values have types of their own; in other files of text, all is text."""
    return file.format in ("jsonl", "json")


def read_documents(stream: RawStream, start: Mark | None, text_column: str) -> Iterator[tuple[Mark, dict[str, Any]]]:
    """Yields places and columns of the documents from ``start`` on.

    :param text_column: What the text of a plain text file is called.
    :raises DataError: The file is not what its format says, or not UTF-8; names the line.
    """
    format = stream.file.format
    if format == "jsonl":
        return json_lines(stream, start)
    if format == "json":
        return json_array(stream, start)
    if format == "txt":
        return whole_text(stream, text_column)
    return delimited(stream, start)
