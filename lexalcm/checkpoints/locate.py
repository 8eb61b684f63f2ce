"""Where the weights of a card lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from fairseq2.assets import AssetCard, AssetDownloadError, AssetDownloadManager
from fairseq2.logging import log
from fairseq2.runtime.dependency import DependencyResolver
from fairseq2.utils.uri import Uri

from lexalcm.checkpoints.described import card_place
from lexalcm.errors import CardError, CheckpointError
from lexalcm.shown import shown

WEIGHT_SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".bin")

SAFETENSORS_FILE: Final = "model.safetensors"

TORCH_FILE: Final = "model.pt"
"""What Meta's trainer writes."""


def has_weights(card: AssetCard) -> bool:
    """Whether the card names weights; otherwise it describes an architecture."""
    return card.has_field("checkpoint")


def is_remote(card: AssetCard) -> bool:
    """Whether the weights must be fetched from somewhere else."""
    return urlsplit(_checkpoint_field(card)[1]).scheme not in ("", "file")


def locate_weights(card: AssetCard, resolver: DependencyResolver) -> Path:
    """Returns the file or folder of a card's weights, and fetches it first if it is elsewhere.

    A relative path counts from the folder of the card that says it, be it a base card. Meta's trainer writes absolute
    ones: in a run that was moved, the same file is found beside the card.

    :raises CardError: The card names no weights, or in a form that cannot be used.
    :raises CheckpointError: Nothing is there, or it cannot be fetched.
    """
    holder, value = _checkpoint_field(card)
    path = _fetched(card, value, resolver) if is_remote(card) else _local(card, holder, value)
    inner = card.maybe_get_field("checkpoint_path")
    if inner is not None:
        root, path = path, path / str(inner.value)
        if not is_within(path, root):
            raise CardError(f"{card_place(card)}: `checkpoint_path` {inner.value} leads out of {root}.")
        if not path.exists():
            raise CheckpointError(f"{card_place(card)}: `checkpoint_path` {inner.value} is not in {root}.")
    return _in_folder(path, card_place(card)) if path.is_dir() else path


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is in a folder by name: links are followed, since the cache of the Hugging Face hub is made of them."""
    root = os.path.abspath(folder)
    return os.path.commonpath([root, os.path.abspath(path)]) == root


def _checkpoint_field(card: AssetCard) -> tuple[AssetCard, str]:
    """The card that says it, which may be one that ``card`` builds on, and what it says."""
    current: AssetCard | None = card
    while current is not None:
        value = current.metadata.get("checkpoint")
        if isinstance(value, str) and value.strip():
            return current, value
        if "checkpoint" in current.metadata:
            raise CardError(f"{card_place(card)}: `checkpoint` must be a path or a URL, but is {value!r}.")
        current = current.base
    raise CardError(
        f"{card_place(card)} names an architecture without weights: none are published for it.\n"
        f"Train your own (`fairseq2 lcm train RECIPE --config model.name={card.name}`), or import a checkpoint that "
        f"you have (`fairseq2 lcm import PATH`)."
    )


def _local(card: AssetCard, holder: AssetCard, value: str) -> Path:
    folder = holder.metadata.get("__base_path__")
    written = Path(value.removeprefix("file://"))
    path = folder / written if isinstance(folder, Path) else written
    if path.exists():
        return path
    # A URL may write a blank as %20; fairseq2 does not read that back.
    if value.startswith("file://") and (unquoted := Path(unquote(str(path)))).exists():
        return unquoted
    if not written.is_absolute() or not isinstance(folder, Path):
        raise CheckpointError(f"{card_place(card)}: `checkpoint` names {path}, which does not exist.")
    beside = _beside(folder, path)
    if beside is not None:
        log.info(
            "Card {} names {}, which is not there. Taking {}, which lies beside the card.", card.name, path, beside
        )
        return beside
    refuse_shards(path.parent)
    raise CheckpointError(
        f"{card_place(card)}: `checkpoint` names {path}, which does not exist, nor does the end of that path in "
        f"{folder}."
    )


def _beside(folder: Path, path: Path) -> Path | None:
    """The end of a path that exists in a folder, the longest first."""
    parts = path.parts[1:]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end.exists()), None)


def _fetched(card: AssetCard, value: str, resolver: DependencyResolver) -> Path:
    manager = resolver.resolve(AssetDownloadManager)
    scheme = urlsplit(value).scheme
    if scheme not in manager.supported_schemes:
        known = ", ".join(sorted(manager.supported_schemes))
        raise CardError(f"{card_place(card)}: `checkpoint` {shown(value)} has the scheme {scheme}. Known: {known}.")
    try:
        return manager.download_model(Uri.parse(value))
    # Without a network, Hugging Face's client raises what its HTTP library does.
    except (AssetDownloadError, OSError, ValueError) as ex:
        reason = str(ex.__cause__ or ex).strip().splitlines()
        raise CheckpointError(
            f"{card_place(card)}: {shown(value)} cannot be fetched: {shown(reason[0]) if reason else type(ex).__name__}\n"
            f"Where there is no network, copy the files here and run: fairseq2 lcm import FOLDER"
        ) from ex


def _in_folder(folder: Path, where: str) -> Path:
    """The one file of weights in a folder, or the folder itself if its weights are in parts."""
    if (folder / "pp_00").is_dir():
        return folder
    for name in (SAFETENSORS_FILE, TORCH_FILE):
        if (folder / name).is_file():
            return folder / name
    if any(folder.glob("*.safetensors")):
        return folder
    refuse_shards(folder)
    others = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if len(others) == 1:
        return others[0]
    found = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
    raise CheckpointError(f"{where}: {folder} must hold {SAFETENSORS_FILE} or {TORCH_FILE}, but holds {found}.")


def refuse_shards(folder: Path) -> None:
    """:raises CheckpointError: A folder of Meta's trainer holds the shards of FSDP alone."""
    shards = sorted(file.name for file in folder.glob("rank_*.pt"))
    if shards and not (folder / TORCH_FILE).is_file():
        raise CheckpointError(
            f"{folder} holds the shards of Meta's FSDP training ({shards[0]}{', ...' if len(shards) > 1 else ''}), but "
            f"no {TORCH_FILE}.\nTake a step that has one, or let Meta's trainer write it: `save_model_every_n_steps`."
        )
