"""The kinds of things that a check of a dataset finds: how grave each is, its name, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """One kind of finding."""

    severity: Severity
    """An error stops training or is skipped by it; a warning is to be looked at; a note is good to know."""

    title: str

    fix: str


_REWRITE: Final = "Write the file again from where it came from, or remove it."
_COLUMN: Final = "Write the column, or name the right one: --column, --text-column, --id-column."
_WIDTH: Final = "Encode with one encoder; --width says which width is meant."
_ROW: Final = "Encode these documents again, or leave them out: `fairseq2 lcm convert --repair drop`."
_COPY: Final = "Keep one of them: what is seen more often is learned by heart."

KINDS: Final[Mapping[str, Kind]] = {
    "no_files": Kind("error", "no parquet files", "Name the folder that holds them; names end in .parquet."),
    "no_documents": Kind("error", "no documents", "Name the folder or split that holds some."),
    "unreadable_file": Kind("error", "files that cannot be read", _REWRITE),
    "missing_column": Kind("error", "files without a column", _COLUMN),
    "repeated_column": Kind("error", "columns that a file has twice", "Rename all but one."),
    "column_type": Kind("error", "columns of a wrong type", _COLUMN),
    "file_width": Kind("error", "files of vectors of another width", _WIDTH),
    "filter": Kind("error", "filters that cannot be applied", "Mend `filters` in the dataset's card."),
    "unreadable_rows": Kind("error", "row groups that cannot be read", _REWRITE),
    "null_embeddings": Kind("error", "documents without a list of embeddings", _ROW),
    "null_sentences": Kind("error", "documents without a list of sentences", _ROW),
    "null_sentence": Kind("error", "documents with a null sentence", _ROW),
    "null_vector": Kind("error", "documents with a null in their embeddings", _ROW),
    "other_width": Kind("error", "documents with a vector of another width", _ROW),
    "not_finite": Kind("error", "documents with NaN or infinity", _ROW),
    "zero_vector": Kind("error", "documents with a zero vector", _ROW),
    "no_embeddings": Kind("error", "documents of text without embeddings", _ROW),
    "counts_differ": Kind("error", "documents with more sentences than vectors, or fewer", _ROW),
    "not_text": Kind("error", "documents with text that is not UTF-8", _ROW),
    "two_splits": Kind("warning", "documents in two splits", "Take them out of one, or validation measures memory."),
    "duplicate": Kind("warning", "documents stored twice", _COPY),
    "duplicate_text": Kind("warning", "documents whose text is stored twice, with other vectors", _COPY),
    "same_id": Kind("warning", "ids that two documents have", "Give each document an id of its own."),
    "near_constant": Kind(
        "warning", "documents with a near-constant vector", "Look at what was encoded; it says next to nothing."
    ),
    "long_sentence": Kind(
        "warning", "documents with a sentence over the cap", "Cut it: SONAR is meant for about 250 characters."
    ),
    "blank_sentence": Kind("warning", "documents with a blank sentence", "Leave it out, with its vector."),
    "single_sentences": Kind(
        "warning", "nothing to predict", "Cut documents into sentences, or join those that belong together."
    ),
    "schema_drift": Kind("warning", "columns that differ between files", "Write all files with one schema."),
    "partition_in_file": Kind(
        "warning", "columns that the path names too", "The path's value is used: drop the file's column."
    ),
    "unreadable_column": Kind(
        "warning", "other columns that Arrow cannot read", "Training does not need them; other tools might."
    ),
    "link": Kind("warning", "links to what is read already", "They are passed over: remove them."),
    "small_row_groups": Kind("warning", "files of tiny row groups", "Write them again with larger ones."),
    "float_type": Kind("note", "files of another float type", "They are read together all the same."),
    "no_text": Kind("note", "no text to check", "Name its column: --text-column."),
}
"""By name, in the order of reports."""
