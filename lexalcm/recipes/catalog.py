"""Which cards there are: of every kind that a ``*_family`` field can name, in fairseq2's own store.

fairseq2 knows models, datasets and tokenizers. Objectives, samplers and whatever another package invents are told apart
in the same way: a card with ``sampler_family`` is a sampler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fairseq2.assets import AssetCard, AssetCardError, AssetStore
from fairseq2.datasets import DatasetFamily
from fairseq2.models import ModelFamily
from fairseq2.runtime.dependency import DependencyResolver

from lexalcm.data.datacards import PATH_FIELD
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import CONCEPT_PARQUET
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.normalizer.config import NORMALIZER_FAMILY
from lexalcm.models.normalizer.model import ConceptNormalizer
from lexalcm.models.pre1.original import OriginalPre1

_SUFFIX: Final = "_family"
_HOST_KINDS: Final = ("dataset", "model", "tokenizer")
_CONCEPT_MODELS: Final = (TwoTowerModel, ConceptNormalizer, OriginalPre1)
NO_KIND: Final = "other"
"""A card without any family, which others may build on."""


@dataclass(frozen=True, order=True)
class Asset:
    """One card under one of its kinds."""

    kind: str

    name: str

    family: str
    """The value of ``<kind>_family``, empty for :data:`NO_KIND`."""

    arch: str
    """Of a model, else empty."""

    source: str
    """The package or folder that the card comes from."""

    for_concepts: bool
    """It can be used with recipes here; most cards of fairseq2 and SONAR can not."""


@dataclass(frozen=True)
class Catalog:
    """All cards of a store."""

    assets: tuple[Asset, ...]
    """By kind, then name."""

    unreadable: tuple[tuple[str, str], ...]
    """Names of broken cards, and what is wrong."""

    @property
    def kinds(self) -> list[str]:
        return sorted({asset.kind for asset in self.assets})


def read_catalog(store: AssetStore, resolver: DependencyResolver) -> Catalog:
    """Reads every card of ``store``.

    :param resolver: Knows the registered families, and so what their assets are.
    """
    assets: list[Asset] = []
    unreadable: list[tuple[str, str]] = []
    # The store calls a card without an environment `name@`.
    for name in sorted({name.removesuffix("@") for name in store.asset_names}):
        try:
            card = store.maybe_retrieve_card(name)
        except AssetCardError as ex:
            unreadable.append((name, str(ex)))
            continue
        if card is None:
            unreadable.append((name, "the card that it adds to does not exist"))
            continue
        assets += _kinds_of(card, name, resolver)
    return Catalog(tuple(sorted(assets)), tuple(unreadable))


def describe_card(card: AssetCard) -> Iterator[tuple[str, dict[str, object]]]:
    """Yields the name and the fields of a card and of the cards it builds on, the card itself first.

    ``source`` is where it comes from; what fairseq2 notes for itself is left out.
    """
    current: AssetCard | None = card
    while current is not None:
        shown = {key: value for key, value in current.metadata.items() if not key.startswith("__")}
        yield current.name, {"source": _source(current), **shown}
        current = current.base


def _kinds_of(card: AssetCard, name: str, resolver: DependencyResolver) -> Iterator[Asset]:
    families: dict[str, str] = {}
    arch = ""
    current: AssetCard | None = card
    while current is not None:
        for key, value in current.metadata.items():
            if key.endswith(_SUFFIX):
                families.setdefault(key.removesuffix(_SUFFIX), str(value))
        arch = arch or str(current.metadata.get("model_arch", ""))
        current = current.base
    if not families and card.maybe_get_field(PATH_FIELD) is not None:  # one of Meta's datacards
        yield Asset("dataset", name, CONCEPT_PARQUET, "", _source(card), True)
        return
    if not families:
        yield Asset(NO_KIND, name, "", "", _source(card), False)
    for field, family in families.items():
        kind = "normalizer" if field == "model" and family == NORMALIZER_FAMILY else field.replace("_", "-")
        usable = field not in _HOST_KINDS or _holds_concepts(field, family, resolver)
        yield Asset(kind, name, family, arch if field == "model" else "", _source(card), usable)


def _holds_concepts(field: str, family: str, resolver: DependencyResolver) -> bool:
    if field == "model":
        model_family = resolver.maybe_resolve(ModelFamily, key=family)
        return model_family is not None and issubclass(model_family.kls, _CONCEPT_MODELS)
    if field == "dataset":
        dataset_family = resolver.maybe_resolve(DatasetFamily, key=family)
        return dataset_family is not None and issubclass(dataset_family.kls, ConceptParquetDataset)
    return False


def _source(card: AssetCard) -> str:
    return str(card.metadata.get("__source__", "unknown"))
