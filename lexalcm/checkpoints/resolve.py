"""What is at this name or path: a registered card, a card file, or a folder with a model in it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fairseq2.assets import AssetCard, AssetStore
from fairseq2.logging import log
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.checkpoints.card_file import cards_in_file, refuse_directives
from lexalcm.checkpoints.locate import TORCH_FILE, WEIGHT_SUFFIXES, is_within, refuse_shards
from lexalcm.checkpoints.published_folder import is_published_folder, read_published_folder
from lexalcm.checkpoints.special_concepts import SPECIAL_FIELD, SPECIAL_FILE, special_field_of_file
from lexalcm.errors import CardError, CheckpointError, near_match
from lexalcm.shown import shown

MODEL_FOLDER: Final = "model"
"""Where a run keeps its ready-to-use model: nothing but cards and weights, so that it can be an asset folder too."""

CARD_FILE: Final = "card.yaml"

META_CARD_FILE: Final = "model_card.yaml"
"""What Meta's trainer calls its cards."""


@dataclass(frozen=True)
class FoundModel:
    """What a folder holds."""

    what: str
    """In words."""

    cards: list[AssetCard]
    """The first is what the folder means."""

    notes: tuple[str, ...] = ()
    """What a user should know before using it."""


def resolve_card(source: str | Path, *, store: AssetStore | None = None) -> AssetCard:
    """Finds the card that ``source`` means.

    :param source: A card's name; a card file, whose first card is meant; or a folder, see :func:`find_in_folder`.
    :param store: By default that of this process.
    :raises CardError: Nothing of the kind is there.
    :raises CheckpointError: The folder holds no model.
    """
    path = Path(source)
    if path.is_dir():
        found = find_in_folder(path)
        for note in found.notes:
            log.warning("{}: {}", path, note)
        return found.cards[0]
    if path.is_file():
        if path.suffix in WEIGHT_SUFFIXES:
            raise CardError(
                f"{path} holds weights, which do not say of what model. Name its folder, or a card that has it as its "
                f"`checkpoint`."
            )
        return cards_in_file(path, store=store)[0]
    name = str(source)
    if path.suffix in (".yaml", ".yml", *WEIGHT_SUFFIXES) or "/" in name:
        raise CardError(
            f"`{name}` is neither a card file nor a folder with a model: nothing is there.\nLooked at {path.resolve()}."
        )
    store = store if store is not None else get_dependency_resolver().resolve(AssetStore)
    card = store.maybe_retrieve_card(name)
    if card is None:
        hint = near_match(name, {n.split("@")[0] for n in store.asset_names})
        raise CardError(
            f'"{name}" is not a known card, card file or folder.{hint}\n'
            f"`fairseq2 lcm assets list` shows the cards; folders of your own are named in FAIRSEQ2_ASSET_DIR."
        )
    refuse_directives(card)
    return card


def find_in_folder(folder: Path) -> FoundModel:
    """Tells what model a folder holds.

    It may be a finished run or an export, a run that is still training, a run or a step of Meta's trainer, or
    LexaLCM-Pre1 as it was published.

    :raises CheckpointError: None of these, or its weights cannot be used.
    """
    for candidate in (folder / MODEL_FOLDER / CARD_FILE, folder / CARD_FILE):
        if candidate.is_file():
            return FoundModel("a model of lexalcm", _cards_within(candidate, folder))
    if is_published_folder(folder):
        published = read_published_folder(folder)
        return FoundModel(published.what, published.cards, published.notes)
    checkpoints = folder if (folder / "model.yaml").is_file() else folder / "checkpoints"
    steps = saved_steps(checkpoints)
    if steps and (checkpoints / "model.yaml").is_file():
        return FoundModel(f"a training run of lexalcm, step {steps[-1]}", [_card_of_step(checkpoints, steps[-1])])
    return _find_of_meta(folder)


def _cards_within(file: Path, folder: Path) -> list[AssetCard]:
    """The cards of a folder that was handed on as a model: what they name by relative path is in it.

    An absolute path means what it says.

    :raises CardError: A path leads out of the folder.
    """
    cards = cards_in_file(file)
    for card in cards:
        special = card.metadata.get(SPECIAL_FIELD)
        named = {
            "checkpoint": card.metadata.get("checkpoint"),
            f"{SPECIAL_FIELD}.file": special.get("file") if isinstance(special, Mapping) else None,
        }
        for field, path in named.items():
            if not isinstance(path, str) or os.path.isabs(path) or "://" in path:
                continue
            if not is_within(file.parent / path, folder):
                raise CardError(
                    f"{file}: `{field}` of card {card.name} is {shown(path)}, which leads out of {folder}.\n"
                    f"A model's folder holds what its cards name. Name the card's file where you wrote it yourself."
                )
    return cards


def _card_of_step(checkpoints: Path, step: int) -> AssetCard:
    card = cards_in_file(checkpoints / "model.yaml")[0]
    metadata = {**card.metadata, "checkpoint": str((checkpoints / f"step_{step}" / "model").resolve())}
    run = checkpoints.resolve().parent if checkpoints.name == "checkpoints" else checkpoints.resolve()
    special = run / SPECIAL_FILE
    if special.is_file():
        metadata[SPECIAL_FIELD] = special_field_of_file(special, str(special))
    return AssetCard(f"{run.name}_step_{step}", metadata)


def _find_of_meta(folder: Path) -> FoundModel:
    """A run of Meta's trainer, its ``checkpoints``, or one step."""
    if (folder / META_CARD_FILE).is_file():
        return FoundModel("a checkpoint of Meta's trainer", _cards_within(folder / META_CARD_FILE, folder))
    refuse_shards(folder)
    checkpoints = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    steps = saved_steps(checkpoints)
    for step in reversed(steps):
        card = checkpoints / f"step_{step}" / META_CARD_FILE
        if card.is_file():
            if step != steps[-1]:
                log.info("{}: step {} is the newest with a model; step {} has none.", folder, step, steps[-1])
            return FoundModel(f"a checkpoint of Meta's trainer, step {step}", _cards_within(card, card.parent))
    if steps:
        refuse_shards(checkpoints / f"step_{steps[-1]}")
    if (folder / TORCH_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds {TORCH_FILE}, but no {META_CARD_FILE} that says what model it is. Write one."
        )
    raise CheckpointError(
        f"{folder} holds no model: neither {MODEL_FOLDER}/{CARD_FILE}, as a finished run has, nor checkpoints/step_N, "
        f"nor {META_CARD_FILE} of Meta's trainer, nor config.json with model.safetensors of LexaLCM-Pre1."
    )


def saved_scores(checkpoints: Path) -> list[tuple[float, int]]:
    """Scores and steps of the complete checkpoints that were scored, the best first; fairseq2 writes higher as
    better."""
    files = {step: checkpoints / "scores" / f"step_{step}.txt" for step in saved_steps(checkpoints)}
    return sorted(((read_score(file), step) for step, file in files.items() if file.is_file()), reverse=True)


def read_score(file: Path) -> float:
    """:raises CheckpointError: It holds no number."""
    try:
        score = float(file.read_text(encoding="ascii"))
    except ValueError:
        raise CheckpointError(f"{file} must hold the score of a checkpoint, but holds no number. Remove it.") from None
    if math.isnan(score):
        raise CheckpointError(f"{file} holds nan, which is no score. Remove it.")
    return score


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending."""
    names = (p.name.removeprefix("step_") for p in checkpoints.glob("step_*") if p.is_dir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 19)
