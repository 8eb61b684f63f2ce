"""How a recipe's documents must be read for its model."""

from __future__ import annotations

from dataclasses import replace

from fairseq2.logging import log

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import ReadingConfig
from lexalcm.errors import ConfigError
from lexalcm.models.interface import TwoTowerModel


def reading_for_model(reading: ReadingConfig, model: TwoTowerModel, dataset: ConceptParquetDataset) -> ReadingConfig:
    """Returns ``reading`` with the context that the model cannot do without.

    :raises ConfigError: Documents may be longer than the model has positions for.
    """
    affixes = [reading.prefix, reading.suffix, reading.target_suffix if dataset.is_supervised else None]
    longest = reading.max_seq_len + sum(name is not None for name in affixes)
    if model.max_document_len is not None and longest > model.max_document_len:
        raise ConfigError(
            f"`dataset.reading.max_seq_len` ({reading.max_seq_len}) with {longest - reading.max_seq_len} special concept(s) "
            f"is longer than the model's `max_seq_len` ({model.max_document_len}).\nLower the former, or raise "
            f"model.config_overrides.max_seq_len of a new model."
        )
    if reading.min_context_len < model.min_context_len:
        log.info("Data - the first {} concept(s) of a document are context alone, as the model needs.", model.min_context_len)
        return replace(reading, min_context_len=model.min_context_len)
    return reading
