"""LexaLCM-Pre1 as it was published: a folder of Hugging Face's layout, ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fairseq2.assets import AssetCard

from lexalcm.checkpoints.locate import SAFETENSORS_FILE
from lexalcm.checkpoints.safetensors_file import read_safetensors_header
from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.models.pre1.config import PRE1_FAMILY
from lexalcm.models.pre1.original_config import PUBLISHED_TYPE, revision_of
from lexalcm.models.pre1.original_hub import ORIGINAL_FAMILY, original_fields
from lexalcm.models.pre1.published_config import from_published_config

CONFIG_FILE: Final = "config.json"

EXPORTED_BY: Final = ("exported_by", "lexalcm")
"""What our own exports note in the file of weights."""


@dataclass(frozen=True)
class PublishedFolder:
    what: str
    """In words, with the revision."""

    cards: list[AssetCard]

    notes: tuple[str, ...]


def is_published_folder(folder: Path) -> bool:
    """Whether it has the two files; of what model they are is not looked at yet."""
    return (folder / CONFIG_FILE).is_file() and (folder / SAFETENSORS_FILE).is_file()


def read_published_folder(folder: Path) -> PublishedFolder:
    """Makes a card of the folder for the family that trains and generates, where its sizes allow that, and one for what
    the published code computed.

    :raises CheckpointError: It is another model's, damaged, or has fields or names that were never published.
    """
    published = _read_config(folder / CONFIG_FILE)
    header = read_safetensors_header(folder / SAFETENSORS_FILE)
    exported = header.facts.get(EXPORTED_BY[0]) == EXPORTED_BY[1]
    name = folder.resolve().name
    try:
        revision = revision_of(header.names)
        original = _card(f"{name}_original", ORIGINAL_FAMILY, original_fields(published, revision), folder)
        ours = asdict(from_published_config(published, revision, keep_schedule=exported))
    except CheckpointError as ex:
        raise CheckpointError(f"{folder}: {ex}") from ex
    except ConfigError as ex:
        ours, reason = None, str(ex)
    what = f"LexaLCM-Pre1 in its published layout, revision {revision} ({len(header.names)} tensors)"
    if ours is None:
        note = (
            f"it is read as what the published code computed (family {ORIGINAL_FAMILY}), which does not train. The "
            f"family {PRE1_FAMILY} cannot hold it: {reason}"
        )
        return PublishedFolder(what, [original], (note,))
    card = _card(name, PRE1_FAMILY, ours, folder)
    if exported:
        return PublishedFolder(f"{what}, exported by lexalcm", [card], ())
    note = (
        f"these weights were trained with the original objective, and the family {PRE1_FAMILY} computes something else "
        f"with them: train it further before use. What the published code computed is the family {ORIGINAL_FAMILY}."
    )
    return PublishedFolder(what, [card, original], (note,))


def _card(name: str, family: str, config: Mapping[str, Any], folder: Path) -> AssetCard:
    metadata = {
        "model_family": family,
        "model_config": dict(config),
        "checkpoint": str(folder.resolve() / SAFETENSORS_FILE),
    }
    return AssetCard(name, {**metadata, "__source__": f"path:{folder}"})


def _read_config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as ex:
        raise CheckpointError(f"{file} is not JSON: {ex}.") from None
    found = content.get("model_type", PUBLISHED_TYPE) if isinstance(content, dict) else None
    if not isinstance(content, dict) or found != PUBLISHED_TYPE:
        kind = f"`model_type` {found}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(f"{file} must describe `model_type` {PUBLISHED_TYPE} (LexaLCM-Pre1), but holds {kind}.")
    return content
