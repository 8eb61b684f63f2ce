"""Writes a finished run's model as safetensors with a card, in a folder that can be moved."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from lexalcm.checkpoints.card_file import cards_in_file
from lexalcm.checkpoints.consolidate import read_averaged_state, read_model_state
from lexalcm.checkpoints.resolve import CARD_FILE, MODEL_FOLDER
from lexalcm.checkpoints.special_concepts import SPECIAL_FIELD, SPECIAL_FILE, special_field_of_file


def export_run(
    run_folder: Path,
    step: int,
    *,
    checkpoints: Path,
    shapes: Mapping[str, torch.Size],
) -> Path:
    """Writes ``model/`` of a run from one of its checkpoints and returns the card's file.

    The first card is the run's name and means the averaged weights if the run keeps an average; ``<name>_raw`` means
    the weights as the optimizer left them. Paths in the cards are relative. Special concepts that the run keeps go
    with them.

    :param checkpoints: The folder of ``step_N`` folders, where ``model.yaml`` names family and configuration.
    :param shapes: Names and shapes of the model's state.
    """
    trained = cards_in_file(checkpoints / "model.yaml")[0].metadata
    step_folder = checkpoints / f"step_{step}"
    name = card_name(run_folder)
    raw = read_model_state(step_folder, shapes)
    averaged = read_averaged_state(step_folder, shapes)
    folder = run_folder / MODEL_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    states = {name: raw} if averaged is None else {name: averaged, f"{name}_raw": raw}
    special = _copy_special_concepts(run_folder / SPECIAL_FILE, folder / SPECIAL_FILE)
    cards = []
    for card, state in states.items():
        file = folder / ("model.safetensors" if card == name else "model_raw.safetensors")
        _write(state, file, step=step)
        cards.append(
            {
                "name": card,
                "model_family": trained["model_family"],
                "model_config": trained["model_config"],
                "checkpoint": file.name,
                "trained_steps": step,
                **special,
            }
        )
    card_file = folder / CARD_FILE
    partial = card_file.with_suffix(".partial")
    partial.write_text(yaml.safe_dump_all(cards, sort_keys=False), encoding="utf-8")
    os.replace(partial, card_file)
    return card_file


def card_name(run_folder: Path) -> str:
    """The name of a run's card: its folder's, with what a card's name may not hold replaced."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in run_folder.resolve().name) or "run"


def _copy_special_concepts(kept: Path, file: Path) -> dict[str, dict[str, str]]:
    """Returns what cards say of them."""
    if not kept.is_file():
        return {}
    partial = file.with_suffix(".partial")
    shutil.copyfile(kept, partial)
    os.replace(partial, file)
    return {SPECIAL_FIELD: special_field_of_file(file, file.name)}


def _write(state: Mapping[str, Tensor], file: Path, *, step: int) -> None:
    partial = file.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata={"format": "pt", "step": str(step)})
    os.replace(partial, file)
