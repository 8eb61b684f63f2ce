"""From a recipe's ``dataset`` section to an open dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairseq2.assets import AssetCard, AssetStore
from fairseq2.datasets import DatasetFamily
from fairseq2.logging import log
from fairseq2.runtime.dependency import DependencyResolver, get_dependency_resolver
from fairseq2.utils.structured import ValueConverter

from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.data.datacards import PATH_FIELD, path_beside, read_datacard
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.dataset_card import DATASET_CARD
from lexalcm.data.dataset_names import DatasetName, join_datasets, parse_dataset_names
from lexalcm.data.sources import CONCEPT_PARQUET, ConceptParquetConfig
from lexalcm.errors import CardError, ConfigError, near_match, unknown_name
from lexalcm.recipes.check_fields import check_fields, refuse_secrets
from lexalcm.recipes.config import ConceptDatasetSection

_FAMILY_FIELD = "dataset_family"


@dataclass(frozen=True)
class _Described:
    """What a card, or a section without one, describes."""

    family: DatasetFamily

    config: object

    weight: float | None = None


def open_dataset(resolver: DependencyResolver, section: ConceptDatasetSection) -> ConceptParquetDataset:
    """Opens the dataset that the section names by cards, path or sources.

    :raises ConfigError: A field cannot be honoured.
    :raises DataError: It cannot be read.
    :raises CardError: A card is not a dataset's.
    """
    if section.name is None:
        family = _family(resolver, str(section.family))
        described = _with_overrides(resolver, _Described(family, family.config_kls()), section)
    else:
        described = _named(resolver, section)
    dataset = described.family.open_custom_dataset(described.config)
    if not isinstance(dataset, ConceptParquetDataset):
        raise ConfigError(
            f"`dataset.family` {described.family.name} does not hold concepts: it opens a {type(dataset).__name__}."
        )
    log.info("Dataset - {}", dataset.describe())
    return dataset


def _named(resolver: DependencyResolver, section: ConceptDatasetSection) -> _Described:
    names = parse_dataset_names(str(section.name))
    found = [_of_card(resolver, resolve_card(name.card, store=resolver.resolve(AssetStore))) for name in names]
    parts = [_with_overrides(resolver, described, section) for described in found]
    if names == [DatasetName(names[0].card)]:
        return parts[0]
    configs: list[tuple[DatasetName, ConceptParquetConfig]] = []
    for name, part in zip(names, parts):
        if not isinstance(part.config, ConceptParquetConfig):
            raise ConfigError(
                f"`dataset.name`: {name.card} is of the family {part.family.name}; splits and weights in names, and "
                f"mixtures, are for {CONCEPT_PARQUET}."
            )
        configs.append((name, part.config))
    return _Described(parts[0].family, join_datasets(configs, [described.weight for described in found]))


def _of_card(resolver: DependencyResolver, card: AssetCard) -> _Described:
    """Reads a card of a family, or one of Meta's, which name none."""
    field = card.maybe_get_field(_FAMILY_FIELD)
    if field is not None:
        family = _family(resolver, str(field.value))
        return _Described(family, _from_folder_of(card, family.get_dataset_config(card)))
    fields = _fields(card)
    if PATH_FIELD not in fields:
        hints = (near_match(name, [_FAMILY_FIELD, PATH_FIELD]) for name in fields)
        raise CardError(
            f"`dataset.name`: card {card.name} is not a dataset's: it has no `{_FAMILY_FIELD}`, and no `{PATH_FIELD}` "
            f"as Meta's cards have.{next(filter(None, hints), '')}"
        )
    folder = card.metadata.get("__base_path__")
    source = str(card.metadata.get("__source__", "")).removeprefix("path:")
    where = source if source.endswith((".yaml", ".yml")) else f"card {card.name}"
    datacard = read_datacard(fields, where=where, folder=folder if isinstance(folder, Path) else None)
    return _Described(_family(resolver, CONCEPT_PARQUET), datacard.config, datacard.weight)


def _from_folder_of(card: AssetCard, config: object) -> object:
    """Takes relative paths from the folder of the card that says them, if something is there, as Meta's cards do."""
    if not isinstance(config, ConceptParquetConfig):
        return config
    holder = card
    while "dataset_config" not in holder.metadata and holder.base is not None:
        holder = holder.base
    folder = holder.metadata.get("__base_path__")
    if not isinstance(folder, Path):
        return config
    sources = [replace(source, path=path_beside(source.path, folder)) for source in config.sources]
    return replace(config, path=config.path and path_beside(config.path, folder), sources=sources)


def _fields(card: AssetCard) -> dict[str, object]:
    """The fields of a card and of those it builds on, its own first."""
    inherited = {} if card.base is None else _fields(card.base)
    own = {key: value for key, value in card.metadata.items() if key not in ("name", "base")}
    return {**inherited, **{key: value for key, value in own.items() if not key.startswith("__")}}


def _family(resolver: DependencyResolver, name: str) -> DatasetFamily:
    family = resolver.maybe_resolve(DatasetFamily, key=name)
    if family is None:
        known = [key for key in resolver.iter_keys(DatasetFamily) if isinstance(key, str)]
        raise ConfigError(f"`dataset.family`: {unknown_name('dataset family', name, known)}")
    return family


def _with_overrides(resolver: DependencyResolver, described: _Described, section: ConceptDatasetSection) -> _Described:
    converter = resolver.resolve(ValueConverter)
    kls = described.family.config_kls
    data: dict[str, Any] = converter.unstructure(described.config)  # type: ignore[assignment]
    if section.config_overrides is not None:
        check_fields(section.config_overrides, kls, "dataset.config_overrides")
        data.update(section.config_overrides)  # type: ignore[call-overload]
    if section.path is not None:
        data["path"] = section.path
    if section.sources:
        data["sources"] = [converter.unstructure(source) for source in section.sources]
    refuse_secrets(data, "dataset")
    return _Described(described.family, converter.structure(data, kls), described.weight)


def open_named_dataset(name: str, *, column: str | None = None, skip_bad_rows: bool = False) -> ConceptParquetDataset:
    """Opens a dataset given on the command line: a path or URL, or cards, as ``dataset.name`` takes them.

    :param column: Of embeddings; the card's or the usual one by default.
    """
    overrides: dict[str, Any] = {}
    if column is not None:
        overrides["embedding_column"] = column
    if skip_bad_rows:
        overrides["on_bad_rows"] = "skip"
    section = ConceptDatasetSection(config_overrides=overrides or None)
    name = _card_within(name)
    if _is_path(name):
        section.path = name
    else:
        section.name = name
    return open_dataset(get_dependency_resolver(), section)


def named_config(name: str, overrides: Mapping[str, Any] | None = None) -> ConceptParquetConfig:
    """What :func:`open_named_dataset` would open, without opening it.

    :param overrides: Fields of the configuration, which win over the cards'.
    """
    overrides = dict(overrides or {})
    name = _card_within(name)
    if _is_path(name):
        refuse_secrets(name, "dataset.path")
        return ConceptParquetConfig(path=name, **overrides)
    section = ConceptDatasetSection(name=name, config_overrides=overrides or None)
    config = _named(get_dependency_resolver(), section).config
    if not isinstance(config, ConceptParquetConfig):
        raise ConfigError(f"{name} is not a dataset of parquet files with concepts, but a {type(config).__name__}.")
    return config


def _card_within(name: str) -> str:
    """The card in a folder that was prepared here: it knows what is source and what is target."""
    card = Path(name) / DATASET_CARD
    return str(card) if card.is_file() else name


def _is_path(name: str) -> bool:
    # A split or weight behind a card's name, say =train:0.5, makes no path of it.
    parts = [re.sub(r"(=\w*)?(:[0-9.]+)?$", "", part.strip()) for part in name.split(",")]
    if any(part.endswith((".yaml", ".yml")) for part in parts):
        return False
    return Path(name).exists() or any(re.search(r"[/\\.]", part) for part in parts)
