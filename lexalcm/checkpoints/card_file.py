"""Cards read from files, apart from any asset store: a broken file or a repeated name there ends every look-up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain as joined
from pathlib import Path
from typing import Any, Final

from fairseq2.assets import AssetCard, AssetStore
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.checkpoints.described import card_place
from lexalcm.errors import CardError, near_match
from lexalcm.shown import shown
from lexalcm.yaml_text import read_yaml

_LONGEST_CHAIN: Final = 16


def cards_in_file(file: Path, *, store: AssetStore | None = None) -> list[AssetCard]:
    """Reads the cards of a YAML file.

    A ``base`` is looked for in the file itself, then in the files beside it, then in the asset store. Directives
    such as ``${env:HOME}`` are refused. What Meta's trainer notes for itself (``__source__``) gives way to where the
    file is.

    :param store: By default that of this process.
    :raises CardError: Not YAML, not a mapping with a name, or built on a card that is not there.
    """
    return [_card(document, file, store, ()) for document in _documents(file)]


def card_beside(folder: Path, name: str, *, store: AssetStore | None = None) -> AssetCard | None:
    """Finds a card by name in the files of a folder; those that hold anything else are passed over."""
    return _find_beside(sorted(_yaml_files(folder)), name, store, ())


def _card(document: dict[str, Any], file: Path, store: AssetStore | None, chain: tuple[str, ...]) -> AssetCard:
    name = _name_of(document)
    if name in chain:
        raise CardError(f"{file}: cards build on each other in a circle: {' -> '.join([*chain, name])}.")
    if len(chain) >= _LONGEST_CHAIN:
        raise CardError(f"{file}: card {chain[0]} builds on more than {_LONGEST_CHAIN} others, one on the next.")
    if (found := _directive(document)) is not None:
        raise _substitutes(str(file), found)
    base = document.get("base")
    base_card = None if base is None else _find_base(str(base), file, store, (*chain, name))
    fields = {key: value for key, value in document.items() if key not in ("name", "base")}
    metadata = {**fields, "__base_path__": file.parent.resolve(), "__source__": f"path:{file}"}
    return AssetCard(name, metadata, base_card)


def _find_base(name: str, file: Path, store: AssetStore | None, chain: tuple[str, ...]) -> AssetCard:
    others = sorted(other for other in _yaml_files(file.parent) if other.name != file.name)
    card = _find_beside([file, *others], name, store, chain)
    if card is not None:
        return card
    store = store if store is not None else get_dependency_resolver().resolve(AssetStore)
    card = store.maybe_retrieve_card(name)
    if card is None:
        hint = near_match(name, {n.split("@")[0] for n in store.asset_names})
        raise CardError(f'{file}: `base` of card {chain[-1]}: "{name}" is not a known card.{hint}')
    return card


def _find_beside(files: list[Path], name: str, store: AssetStore | None, chain: tuple[str, ...]) -> AssetCard | None:
    for file in files:
        try:
            documents = _documents(file)
        except (CardError, OSError):
            continue  # this folder is not one of cards alone
        for document in documents:
            if _name_of(document) == name:
                return _card(document, file, store, chain)
    return None


def _documents(file: Path) -> list[dict[str, Any]]:
    try:
        documents = read_yaml(file)
    except ValueError as ex:
        raise CardError(f"{file} is not a card: it is not valid YAML ({shown(ex)}).") from None
    if not documents:
        raise CardError(f"{file} holds no card: it is empty.")
    for number, document in enumerate(documents, start=1):
        if not isinstance(document, dict) or not isinstance(document.get("name"), str) or not _name_of(document):
            raise CardError(
                f"{file}: card {number} must be a mapping with a `name`, but is {type(document).__name__}"
                f"{'' if not isinstance(document, dict) else ' without one'}."
            )
        if not document["name"].isprintable():
            raise CardError(f"{file}: card {number} has the name {document['name']!r}, which is not on one line.")
    return documents


def _name_of(document: dict[str, Any]) -> str:
    # Behind an `@` stands the environment that a card of the store is for.
    return str(document["name"]).split("@")[0].strip()


def _yaml_files(folder: Path) -> list[Path]:
    return [*folder.glob("*.yaml"), *folder.glob("*.yml")]


def refuse_directives(card: AssetCard) -> None:
    """fairseq2 puts variables of the environment into the configuration of a card that asks for it (``${env:NAME}``);
    what is there may be a password, and the card a stranger's.

    :raises CardError: The card, or one that it builds on, asks for it.
    """
    current: AssetCard | None = card
    while current is not None:
        if (found := _directive(current.metadata)) is not None:
            raise _substitutes(card_place(current), found)
        current = current.base


def _directive(value: object) -> str | None:
    """The first text that would be replaced by something else, among values and names."""
    if isinstance(value, str):
        return value if "${" in value else None
    items: Iterable[object] = ()
    if isinstance(value, Mapping):
        items = joined.from_iterable(value.items())
    elif isinstance(value, (list, tuple)):
        items = value
    return next((found for item in items if (found := _directive(item)) is not None), None)


def _substitutes(where: str, text: str) -> CardError:
    return CardError(f"{where}: `{shown(text)}` would substitute something of this machine. Write the value itself.")
