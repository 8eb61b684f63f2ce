"""Meta's datacards: cards without a family, whose fields are those of its own parquet loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fairseq2.logging import log

from lexalcm.data.filter_expressions import parse_filters
from lexalcm.data.filters import FilterConfig
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.errors import ConfigError, near_match

PATH_FIELD: Final = "parquet_path"

_COLUMNS: Final[Mapping[str, str]] = {
    "source_column": "embedding_column",
    "source_text_column": "text_column",
    "target_column": "target_column",
    "target_text_column": "target_text_column",
}
"""Names of Meta's fields, and of ours."""

_FILTERS: Final = ("filters", "partition_filters")
_HONOURED: Final = (PATH_FIELD, *_COLUMNS, *_FILTERS, "weight")

_TUNING: Final = ("split_to_row_groups", "nb_parallel_fragments", "sharding_in_memory", "silent_freeze", "columns")
"""How Meta reads, not what: said once, and left to our reader."""

_AFFIX: Final = "it is a text to encode; name its vector in `dataset.reading.{}`"
_QUALITY: Final = "filters on scores of sentences are not built; filter the files, or prepare them again"
_SEQUENCES: Final = "joining columns while reading is not built; prepare a column that holds them in order"
_LOADING: Final = "it is not of a card, but of how to read: `dataset.reading.{}`"
_NOT_BUILT: Final = "it is not of a card, and has no counterpart here"
_REFUSED: Final[Mapping[str, str]] = {
    "source_prefix_text": _AFFIX.format("prefix"),
    "source_suffix_text": _AFFIX.format("suffix"),
    "target_prefix_text": "nothing stands before a target but the source's suffix, `dataset.reading.suffix`",
    "target_suffix_text": _AFFIX.format("target_suffix"),
    "source_sequences": _SEQUENCES,
    "target_sequences": _SEQUENCES,
    **dict.fromkeys(
        ("source_quality_column", "source_quality_range", "target_quality_column", "target_quality_range"), _QUALITY
    ),
    "limit": "give the files to read in `parquet_path`, or `filters`",
    "filesystem_expr": "it is code to run; write a URL (s3://...) in `parquet_path`",
    "filesystem": "write a URL (s3://...) in `parquet_path`",
    "len_to_wrap_long_seq": _LOADING.format("max_seq_len"),
    "batch_size": _LOADING.format("documents_per_batch"),
    "max_tokens": _LOADING.format("concepts_per_batch"),
    "min_length_of_sequences": _LOADING.format("min_document_len"),
    "shuffle": _LOADING.format("shuffle"),
    "seed": _LOADING.format("seed"),
    **dict.fromkeys(
        (
            *("min_length_of_sequences_after_batching", "min_length_of_target_sequences_after_batching"),
            *("min_length_of_target_sequences", "min_batch_size", "packing", "wrap_before_affixing", "nb_epochs"),
            *("max_sentence_len_in_doc", "min_sentence_len_in_doc", "order_by_length", "drop_null"),
        ),
        _NOT_BUILT,
    ),
}
"""What Meta's loader knows and ours does not, and why or where else."""


@dataclass(frozen=True)
class Datacard:
    """What a card of Meta's says, as a dataset of ours."""

    config: ConceptParquetConfig

    weight: float | None


def read_datacard(fields: Mapping[str, object], *, where: str, folder: Path | None = None) -> Datacard:
    """
    :param fields: The card's own and those of the cards it builds on; ``None`` is the same as left out.
    :param where: The card's file or name, for messages.
    :param folder: Where the card lies: a relative path is taken from there if something is there, else from the working
        directory, as Meta does.
    :raises ConfigError: A field is misspelt, or cannot be honoured.
    """
    path = _path(fields, where)
    _check_names(fields, where)
    given = {ours: meta for meta, ours in _COLUMNS.items() if fields.get(meta) is not None}
    columns = {ours: _text(fields[meta], meta, where) for ours, meta in given.items()}
    tuning = [name for name in _TUNING if fields.get(name) is not None]
    if tuning:
        log.info("Dataset - {}: how Meta would read is left to our reader: {}.", where, ", ".join(tuning))
    filters = [config for name in _FILTERS for config in _filters(fields.get(name), name, where)]
    config = ConceptParquetConfig(path=path_beside(path, folder), filters=filters, **columns)
    return Datacard(config, _weight(fields.get("weight"), where))


def _path(fields: Mapping[str, object], where: str) -> str:
    value = fields.get(PATH_FIELD)
    if isinstance(value, Mapping) and value:
        places = {str(name): place for name, place in value.items()}
        chosen = next((name for name in ("local", "s3") if name in places), next(iter(places)))
        if len(places) > 1:
            log.info("Dataset - {}: of {} in `{}`, {} is read.", where, ", ".join(places), PATH_FIELD, chosen)
        return _text(places[chosen], f"{PATH_FIELD}.{chosen}", where)
    if isinstance(value, str) and value.strip():
        return value
    # YAML that is not indented leaves the field empty, and its places become fields of the card.
    stray = [name for name, place in fields.items() if isinstance(place, str) and name not in (*_HONOURED, *_REFUSED)]
    fix = f" Indent `{stray[0]}:` below it." if value in (None, "") and stray else ""
    found = "empty" if value in (None, "", {}, []) else repr(value)[:80]
    raise ConfigError(f"{where}: `{PATH_FIELD}` must be a path or a mapping of name to path, but is {found}.{fix}")


def _check_names(fields: Mapping[str, object], where: str) -> None:
    for name, value in fields.items():
        if value is not None and name in _REFUSED:
            raise ConfigError(f"{where}: `{name}` cannot be honoured: {_REFUSED[name]}.")
        if name not in (*_HONOURED, *_TUNING, *_REFUSED):
            known = (*_HONOURED, *_TUNING)
            raise ConfigError(
                f"{where} has no field `{name}` that a datacard knows.{near_match(str(name), [*known, *_REFUSED])}\n"
                f"Fields: {', '.join(known)}."
            )


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: `{name}` must be a text, but is {value!r}.")
    return value


def _filters(value: object, name: str, where: str) -> list[FilterConfig]:
    if value is None:
        return []
    if not isinstance(value, str):
        raise ConfigError(f"{where}: `{name}` must be the text of an expression, but is {str(value)[:80]!r}.")
    return parse_filters(value, where=f"{where}: `{name}`")


def _weight(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < float("inf"):
        raise ConfigError(f"{where}: `weight` must be a number above 0, but is {value!r}.")
    return float(value)


def path_beside(path: str, folder: Path | None) -> str:
    """A path as a card's folder knows it: relative ones that lead nowhere from there count from the working
    directory."""
    if folder is None or "://" in path or Path(path).is_absolute() or not (folder / path).exists():
        return path
    return str(folder / path)
