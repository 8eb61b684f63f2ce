"""The card that stands beside a dataset: ``dataset.name=FOLDER/dataset.yaml`` works at once, wherever the folder is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from lexalcm.data.sources import CONCEPT_PARQUET

DATASET_CARD: Final = "dataset.yaml"

MADE_BY_FIELD: Final = "made_by"
"""Of a card: how the data came about, for people and for reports; nothing reads it to load data."""


def write_dataset_card(
    folder: Path, *, config: Mapping[str, Any], facts: Mapping[str, Any], name: str | None = None
) -> Path:
    """Writes ``FOLDER/dataset.yaml``; one that stands there is replaced.

    :param config: Fields of :class:`~lexalcm.data.sources.ConceptParquetConfig` other than ``path``.
    :param facts: How the data was made, as plain values.
    :param name: ``None``: the folder's, with ``_`` for what a name in a recipe cannot hold.
    :returns: The card's file.
    """
    card = {
        "name": name or re.sub(r"[^A-Za-z0-9_.-]", "_", folder.resolve().name),
        "dataset_family": CONCEPT_PARQUET,
        "dataset_config": {"path": ".", **config},
        MADE_BY_FIELD: dict(facts),
    }
    file = folder / DATASET_CARD
    aside = folder / f".{DATASET_CARD}.{os.getpid()}.tmp"
    aside.write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True), encoding="utf-8")
    os.replace(aside, file)
    return file
