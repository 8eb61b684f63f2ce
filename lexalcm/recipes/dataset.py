"""From a recipe's ``dataset`` section to an open dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairseq2.assets import AssetStore
from fairseq2.datasets import DatasetFamily
from fairseq2.logging import log
from fairseq2.runtime.dependency import DependencyResolver, get_dependency_resolver
from fairseq2.utils.structured import ValueConverter

from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.errors import CardError, ConfigError, unknown_name
from lexalcm.recipes.check_fields import check_fields
from lexalcm.recipes.config import ConceptDatasetSection


def open_dataset(resolver: DependencyResolver, section: ConceptDatasetSection) -> ConceptParquetDataset:
    """Opens the dataset that the section names by card, path or sources.

    :raises DataError: It cannot be read.
    :raises CardError: The card is not a dataset's.
    """
    card = None
    family_name: Any = section.family
    if section.name is not None:
        card = resolve_card(section.name, store=resolver.resolve(AssetStore))
        field = card.maybe_get_field("dataset_family")
        if field is None:
            raise CardError(f"`dataset.name`: card {section.name} is not a dataset's: it has no `dataset_family`.")
        family_name = field.value
    family = resolver.maybe_resolve(DatasetFamily, key=family_name)
    if family is None:
        known = [key for key in resolver.iter_keys(DatasetFamily) if isinstance(key, str)]
        raise ConfigError(f"`dataset.family`: {unknown_name('dataset family', str(family_name), known)}")
    config = family.get_dataset_config(card) if card is not None else family.config_kls()
    converter = resolver.resolve(ValueConverter)
    data: dict[str, Any] = converter.unstructure(config)  # type: ignore[assignment]
    if section.config_overrides is not None:
        check_fields(section.config_overrides, family.config_kls, "dataset.config_overrides")
        data.update(section.config_overrides)  # type: ignore[call-overload]
    if section.path is not None:
        data["path"] = section.path
    if section.sources:
        data["sources"] = [converter.unstructure(source) for source in section.sources]
    dataset = family.open_custom_dataset(converter.structure(data, family.config_kls))
    if not isinstance(dataset, ConceptParquetDataset):
        raise ConfigError(
            f"`dataset.family` {family_name} does not hold concepts: it opens a {type(dataset).__name__}."
        )
    log.info("Dataset - {}", dataset.describe())
    return dataset


def open_named_dataset(name: str, *, column: str | None = None, skip_bad_rows: bool = False) -> ConceptParquetDataset:
    """Opens a dataset given on the command line: a path or URL, or a card's name.

    :param column: Of embeddings; the card's or the usual one by default.
    """
    overrides: dict[str, Any] = {}
    if column is not None:
        overrides["embedding_column"] = column
    if skip_bad_rows:
        overrides["on_bad_rows"] = "skip"
    section = ConceptDatasetSection(config_overrides=overrides or None)
    is_path = "/" in name or "\\" in name or "." in name or Path(name).exists()
    if is_path:
        section.path = name
    else:
        section.name = name
    return open_dataset(get_dependency_resolver(), section)
