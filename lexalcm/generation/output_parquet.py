"""Continuations as parquet in Meta's layout: they can be trained on, and continued again.

Shapes: n concepts of a continuation, C dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import DataError

ANY_LANGUAGE: Final = "text"
"""What stands for the language where the decoder knows one only."""


def write_parquet(path: Path, rows: Callable[[], Iterator[Mapping[str, Any]]]) -> None:
    """Writes a row a continuation: its sentences in the first language asked for (empty texts where there is no
    decoder) and its concepts in float32, in the columns of Meta's datasets.

    Further columns, all of them texts: ``id``, ``digest`` (of what the prompt says), ``lang``, ``reason``, ``prompt`` (a
    sentence a line, as far as it is known), and ``text_LANG`` (a sentence a line) for each further language.

    :param rows: Gives the rows of the journal each time it is called.
    """
    # A column must be in all rows, and a prompt's own language may be any.
    further = sorted({lang for row in rows() for lang in list(row["continuation"])[1:]})
    write_documents(path, (_document(row, further) for row in rows()), dtype="float32")


def read_ids(path: Path) -> dict[str, str]:
    """The ids in a file that :func:`write_parquet` has written, in order, and the digests of their prompts.

    :raises DataError: It is damaged, or another kind of file.
    """
    try:
        table = pq.read_table(path, columns=["id", "digest"], partitioning=None)
        return dict(zip(table.column("id").to_pylist(), table.column("digest").to_pylist()))
    except (pa.ArrowException, OSError, KeyError) as ex:
        raise DataError(f"{path} is not a file of continuations: {str(ex).splitlines()[0]}") from None


def _document(row: Mapping[str, Any], further: list[str]) -> NewDocument:
    texts: dict[str, list[str]] = row["continuation"]
    first = next(iter(texts), None)
    concepts = np.asarray(row["concepts"], dtype=np.float32).reshape(row["num_concepts"], row["concept_dim"])
    columns = {
        "id": row["id"],
        "digest": row.get("digest") or "",
        "lang": (row["lang"] if first in (None, ANY_LANGUAGE) else first) or "",
        "reason": row["reason"],
        "prompt": _lines(row["prompt"] or []),
        **{f"text_{lang}": _lines(texts.get(lang, [])) for lang in further},
    }
    return NewDocument([""] * len(concepts) if first is None else texts[first], concepts, columns)


def _lines(sentences: list[str]) -> str:
    return "\n".join(" ".join(sentence.split()) for sentence in sentences)
