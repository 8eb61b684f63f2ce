"""What is at this name or path: a registered card, a card file, or the folder of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fairseq2.assets import AssetCard, AssetStore
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.errors import CardError, CheckpointError, unknown_name
from lexalcm.yaml_text import parse_yaml

MODEL_FOLDER: Final = "model"
"""Where a run keeps its ready-to-use model: nothing but cards and weights, so that it can be an asset folder too."""

CARD_FILE: Final = "card.yaml"


def resolve_card(source: str | Path, *, store: AssetStore | None = None) -> AssetCard:
    """Finds the card that ``source`` means.

    :param source: A card's name; a card file, whose first card is meant; or a run's folder, which means its model, or
        while it is still training its newest checkpoint.
    :raises CardError: Nothing of the kind is there.
    """
    path = Path(source)
    if path.is_dir():
        return _card_of_folder(path)
    if path.is_file():
        return cards_in_file(path)[0]
    name = str(source)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise CardError(
            f"`{name}` is neither a card file nor a folder of a run: nothing is there.\nLooked at {path.resolve()}."
        )
    store = store if store is not None else get_dependency_resolver().resolve(AssetStore)
    card = store.maybe_retrieve_card(name)
    if card is None:
        known = sorted({n.split("@")[0] for n in store.asset_names})
        raise CardError(
            unknown_name("card, card file or run folder", name, known)
            + "\n`fairseq2 lcm assets list` shows the cards; folders of your own are named in FAIRSEQ2_ASSET_DIR."
        )
    return card


def cards_in_file(file: Path) -> list[AssetCard]:
    """Reads the cards of a YAML file, apart from any asset store.

    Relative paths of checkpoints are taken from the file's own folder. Directives such as ``${env:HOME}`` are refused.

    :raises CardError: Not YAML, or not a mapping with a name.
    """
    try:
        documents = parse_yaml(file.read_text(encoding="utf-8"))
    except ValueError as ex:
        raise CardError(f"{file} is not a card: it is not valid YAML ({ex}).") from None
    if not documents:
        raise CardError(f"{file} holds no card: it is empty.")
    cards = []
    for number, document in enumerate(documents, start=1):
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            raise CardError(
                f"{file}: card {number} must be a mapping with a `name`, but is {type(document).__name__}"
                f"{'' if not isinstance(document, dict) else ' without one'}."
            )
        _refuse_directives(document, file)
        name = document.pop("name").split("@")[0]
        base = document.pop("base", None)
        base_card = (
            None if base is None else get_dependency_resolver().resolve(AssetStore).maybe_retrieve_card(str(base))
        )
        if base is not None and base_card is None:
            raise CardError(f"{file}: `base` of card {name} names {base}, which is not a known card.")
        checkpoint = document.get("checkpoint")
        if isinstance(checkpoint, str) and "://" not in checkpoint:
            document["checkpoint"] = str((file.parent / checkpoint).resolve())
        metadata = {**document, "__base_path__": file.parent.resolve(), "__source__": f"path:{file}"}
        cards.append(AssetCard(name, metadata, base_card))
    return cards


def _refuse_directives(value: object, file: Path) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _refuse_directives(item, file)
    elif isinstance(value, list):
        for item in value:
            _refuse_directives(item, file)
    elif isinstance(value, str) and "${" in value:
        raise CardError(f"{file}: `{value}` would substitute something of this machine. Write the value itself.")


def _card_of_folder(folder: Path) -> AssetCard:
    for candidate in (folder / MODEL_FOLDER / CARD_FILE, folder / CARD_FILE):
        if candidate.is_file():
            return cards_in_file(candidate)[0]
    checkpoints = folder if (folder / "model.yaml").is_file() else folder / "checkpoints"
    steps = saved_steps(checkpoints)
    if not (checkpoints / "model.yaml").is_file() or not steps:
        raise CheckpointError(
            f"{folder} holds no model: neither {MODEL_FOLDER}/{CARD_FILE}, as a finished run has, nor checkpoints/step_N."
        )
    card = cards_in_file(checkpoints / "model.yaml")[0]
    metadata = {**card.metadata, "checkpoint": str((checkpoints / f"step_{steps[-1]}" / "model").resolve())}
    return AssetCard(f"{folder.name}_step_{steps[-1]}", metadata)


def saved_scores(checkpoints: Path) -> list[tuple[float, int]]:
    """Scores and steps of the complete checkpoints that were scored, the best first; fairseq2 writes higher as
    better."""
    files = {step: checkpoints / "scores" / f"step_{step}.txt" for step in saved_steps(checkpoints)}
    return sorted(((float(f.read_text()), step) for step, f in files.items() if f.is_file()), reverse=True)


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, ascending."""
    names = (p.name.removeprefix("step_") for p in checkpoints.glob("step_*") if p.is_dir())
    return sorted(int(name) for name in names if name.isdigit())
