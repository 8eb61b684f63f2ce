"""What the card beside a dataset tells of its making: encoder, segmenter, and whatever else was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.dataset_card import DATASET_CARD, MADE_BY_FIELD
from lexalcm.yaml_text import parse_yaml


def made_by(name: str, dataset: ConceptParquetDataset) -> Mapping[str, Any]:
    """
    :param name: As the dataset was opened; that is its card if it is a YAML file; others lie in or above its folder.
    :returns: What the first card found records; empty where there is none.
    """
    places = [Path(name)] if name.endswith((".yaml", ".yml")) else []
    for source in dataset.config.resolved_sources():
        folder = Path(source.path)
        places += [folder / DATASET_CARD, folder.parent / DATASET_CARD]
    for place in places:
        facts = _recorded(place) if place.is_file() else None
        if facts is not None:
            return facts
    return {}


def _recorded(place: Path) -> Mapping[str, Any] | None:
    try:
        documents = parse_yaml(place.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        # Facts are an ornament: a card that cannot be read is told of by whoever opens the dataset by it.
        return None
    for document in documents:
        facts = document.get(MADE_BY_FIELD) if isinstance(document, Mapping) else None
        if isinstance(facts, Mapping):
            return facts
    return None
