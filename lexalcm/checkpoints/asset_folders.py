"""Folders of cards, read so that one bad file is one bad file.

In fairseq2 a broken file in an asset folder, or a name that stands in two places, ends every look-up, of cards that have
nothing to do with it too. Here such a file is passed over and a name means the first card that has it; both are said in
the log, once. The places keep fairseq2's order: its own cards, the folders of FAIRSEQ2_ASSET_DIR and
FAIRSEQ2_USER_ASSET_DIR, the cards of packages such as this one, and a recipe's ``common.assets.extra_paths``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, final

from fairseq2.assets import (
    AssetEnvironmentDetector,
    AssetMetadataProvider,
    AssetMetadataSource,
    AssetSourceNotFoundError,
    AssetStore,
    CachedAssetMetadataProvider,
    FileAssetMetadataLoader,
    StandardAssetStore,
)
from fairseq2.file_system import FileSystem
from fairseq2.logging import log
from fairseq2.runtime.dependency import DependencyContainer, DependencyResolver
from typing_extensions import override

from lexalcm.shown import shown
from lexalcm.yaml_text import MOST_CHARACTERS, parse_yaml

T = TypeVar("T")

_SUFFIXES: Final = (".yaml", ".yml")
_MOST_TOLD: Final = 3
_LONGEST_CHAIN: Final = 16


def register_asset_folders(container: DependencyContainer) -> None:
    """Puts these in the place of fairseq2's own."""
    _replace(container, AssetStore, _create_store)  # type: ignore[type-abstract]
    _replace(container, FileAssetMetadataLoader, lambda r: CardFolderLoader(r.resolve(FileSystem)))  # type: ignore


def _replace(container: DependencyContainer, kls: type[T], create: Callable[[DependencyResolver], T]) -> None:
    # The library has registered its own already, and a container takes only one of a kind.
    del container._registrations[(kls, None)]
    container.register(kls, create, singleton=True)


@final
class CardFolderLoader(FileAssetMetadataLoader):
    """Reads the cards of a folder and of the folders in it, or of one file."""

    def __init__(self, file_system: FileSystem) -> None:
        self._file_system = file_system

    @override
    def load(self, path: Path) -> AssetMetadataProvider:
        source = f"path:{path}"
        path = self._file_system.resolve(path)
        if not self._file_system.exists(path):
            raise AssetSourceNotFoundError(source)
        cards: dict[str, dict[str, object]] = {}
        places: dict[str, Path] = {}
        passed_over: list[str] = []
        for file in self._files(path):
            for card, fault in self._cards_in(file):
                if card is None:
                    passed_over.append(f"{shown(file)} ({fault})")
                    continue
                name = str(card.pop("name"))
                if name in cards:
                    _warn_once(_twice(name, str(places[name]), str(file)))
                    continue
                cards[name] = {**card, "__base_path__": file.parent}
                places[name] = file
        if passed_over:
            more = f" and {len(passed_over) - _MOST_TOLD} more" if len(passed_over) > _MOST_TOLD else ""
            _warn_once(f"Cards - passed over: {'; '.join(passed_over[:_MOST_TOLD])}{more}.")
        return CachedAssetMetadataProvider(source, cards)

    def _files(self, path: Path) -> list[Path]:
        if not self._file_system.is_dir(path):
            return [path]
        # A folder in it that cannot be entered holds no card for this user.
        folders = self._file_system.walk_directory(path, on_error=None)
        files = [Path(folder) / name for folder, names in folders for name in names]
        return sorted(f for f in files if f.suffix in _SUFFIXES and self._file_system.is_file(f))

    def _cards_in(self, file: Path) -> Iterator[tuple[dict[str, Any] | None, str]]:
        """Yields each card with its name as the store knows it, or what is wrong in its place."""
        try:
            with self._file_system.open_text(file) as text:
                documents = parse_yaml(text.read(MOST_CHARACTERS + 1))
        except OSError as ex:
            yield None, f"it cannot be read: {ex.strerror or ex}"
            return
        except ValueError as ex:  # neither YAML nor, perhaps, text
            yield None, f"not valid YAML: {shown(ex)}"
            return
        for number, document in enumerate(documents, start=1):
            fault = _fault(document)
            if fault is not None:
                yield None, f"card {number} {fault}"
                continue
            name, _, environment = document["name"].partition("@")
            base = {"base": document["base"].strip()} if "base" in document else {}
            yield {**document, **base, "name": f"{name.strip()}@{environment.strip()}"}, ""


def _fault(document: object) -> str | None:
    if not isinstance(document, dict) or "name" not in document:
        return "has no `name`"
    for field in ("name", "base"):
        value = document.get(field)
        if value is None and field not in document:
            continue
        if not isinstance(value, str) or not value.split("@")[0].strip() or not value.isprintable():
            return f"has a `{field}` that is no name"
        if value.count("@") > (field == "name"):
            return f"has a `{field}` with an @ too many"
    return None


def _create_store(resolver: DependencyResolver) -> AssetStore:
    sources = resolver.collection.resolve(AssetMetadataSource)
    environment = resolver.resolve(AssetEnvironmentDetector).detect()
    providers = list(_first_of_each(provider for source in sources for provider in source.load()))
    return StandardAssetStore(_without_circles(providers), default_env=environment)


def _first_of_each(providers: Iterable[AssetMetadataProvider]) -> Iterator[CachedAssetMetadataProvider]:
    """The same cards, without those whose name an earlier place has."""
    places: dict[str, str] = {}
    for provider in providers:
        names = sorted(provider.asset_names)
        for name in names:
            if name in places:
                _warn_once(_twice(name, places[name], provider.source))
        fresh = {name: provider.maybe_get_metadata(name) or {} for name in names if name not in places}
        places.update(dict.fromkeys(fresh, provider.source))
        yield CachedAssetMetadataProvider(provider.source, fresh)


def _without_circles(providers: list[CachedAssetMetadataProvider]) -> Iterator[AssetMetadataProvider]:
    """The same cards, without those that build on themselves, or in a chain that no card needs: retrieving one, or
    looking through all, would have no end."""
    bases: dict[str, set[str]] = {}
    for provider in providers:
        for name in provider.asset_names:
            base = (provider.maybe_get_metadata(name) or {}).get("base")
            bases.setdefault(name.partition("@")[0], set()).update([base] if isinstance(base, str) else [])
    endless = {name for name in bases if _is_endless(name, bases)}
    for provider in providers:
        kept = {
            name: provider.maybe_get_metadata(name) or {}
            for name in provider.asset_names
            if name.partition("@")[0] not in endless
        }
        for name in sorted(provider.asset_names - kept.keys()):
            _warn_once(f"Cards - passed over: {name.removesuffix('@')} in {shown(provider.source)} builds on itself.")
        yield CachedAssetMetadataProvider(provider.source, kept)


def _is_endless(name: str, bases: dict[str, set[str]]) -> bool:
    level = {name}
    for _ in range(_LONGEST_CHAIN):
        level = {base for card in level for base in bases.get(card, ())}
        if not level:
            return False
    return True


def _twice(name: str, first: str, second: str) -> str:
    first, second = (shown(place.removeprefix("path:")) for place in (first, second))
    return f"Cards - {shown(name.removesuffix('@'))} stands in {first} and in {second}: the former counts."


@cache
def _warn_once(message: str) -> None:
    # A process may look cards up in several stores, a run's and its own.
    log.warning("{}", message)
