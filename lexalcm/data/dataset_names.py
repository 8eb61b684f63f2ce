"""Mixtures of named datasets, written as Meta does: ``wiki=train:2, books=train:0.5``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from fairseq2.logging import log

from lexalcm.data.sources import ConceptParquetConfig, SourceConfig
from lexalcm.errors import ConfigError

_NAME: Final = re.compile(r"(?P<card>[^=:,\s]+)(=(?P<split>[A-Za-z0-9_]*))?(:(?P<weight>[0-9]+(\.[0-9]+)?))?")
_SHARED: Final = ("concept_dim", "on_bad_rows", "max_bad_share")


@dataclass(frozen=True)
class DatasetName:
    """One part of a mixture."""

    card: str

    split: str | None = None
    """Read nothing but this split, whichever is asked for."""

    weight: float | None = None
    """``None``: the card's own."""

    @property
    def label(self) -> str:
        """What its documents are called by."""
        return self.card if self.split is None else f"{self.card}={self.split}"


def parse_dataset_names(text: str) -> list[DatasetName]:
    """
    :raises ConfigError: A part is not of the form.
    """
    names = []
    for part in text.split(","):
        match = _NAME.fullmatch(part.strip())
        weight = None if match is None or match["weight"] is None else float(match["weight"])
        if match is None or weight == 0.0:
            raise ConfigError(
                f"`dataset.name`: `{part.strip()}` is not of the form card, card=split, card:weight or "
                f"card=split:weight.\n"
                f"A split is of letters, digits and _, a weight a number above 0 such as 2 or 0.5; commas join several."
            )
        names.append(DatasetName(match["card"], match["split"] or None, weight))
    return names


def join_datasets(
    parts: Sequence[tuple[DatasetName, ConceptParquetConfig]], card_weights: Sequence[float | None]
) -> ConceptParquetConfig:
    """Makes one dataset of several. With weights their documents are mixed; without, they are joined, and an epoch has
    each once.

    :param card_weights: What the cards say; a weight in the name wins, and 1 counts where only others have one.
    :raises ConfigError: They cannot be read together.
    """
    if len(parts) == 1 and parts[0][0].split is None:
        return parts[0][1]
    weights = _weights([name for name, _ in parts], card_weights)
    shared = {}
    for field in _SHARED:
        values = [v for _, config in parts if (v := getattr(config, field)) is not None] or [None]
        if any(value != values[0] for value in values):
            raise ConfigError(
                f"`dataset.name`: the cards have {', '.join(map(str, values))} for `{field}`. "
                f"Set it in `dataset.config_overrides`."
            )
        shared[field] = values[0]
    sources = [source for (name, config), weight in zip(parts, weights) for source in _sources(name, config, weight)]
    return ConceptParquetConfig(sources=sources, **shared)


def _weights(names: Sequence[DatasetName], card_weights: Sequence[float | None]) -> list[float | None]:
    given = [of_card if name.weight is None else name.weight for name, of_card in zip(names, card_weights)]
    if len(names) == 1 or all(weight is None for weight in given):
        return [None] * len(names)
    weights: list[float | None] = [1.0 if weight is None else weight for weight in given]
    told = [
        f"{name.label} {weight:g}{' (none given)' if none is None else ''}"
        for name, weight, none in zip(names, weights, given)
    ]
    log.info("Dataset - weights: {}.", ", ".join(told))
    return weights


def _sources(name: DatasetName, config: ConceptParquetConfig, weight: float | None) -> list[SourceConfig]:
    sources = config.resolved_sources()
    own = [source.weight for source in sources]
    if weight is not None and len(sources) > 1 and own[0] is None:
        raise ConfigError(
            f"`dataset.name`: {name.card} joins {len(sources)} sources without weights, so that it cannot have one "
            f"itself.\nGive its sources weights, or name none in the mixture."
        )
    total = sum(w for w in own if w is not None)
    return [
        replace(
            source,
            name=name.label if len(sources) == 1 else f"{name.label}/{source.name}",
            only_split=name.split or source.only_split,
            weight=source.weight if weight is None else weight * (source.weight / total if source.weight else 1.0),
        )
        for source in sources
    ]
