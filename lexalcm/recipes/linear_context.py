"""Starts a new model's linear path at a regression on the run's own data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.linear_context import LinearContext
from lexalcm.pipelines.fit_linear_context import fit_linear_context
from lexalcm.recipes.config import LcmTrainConfig


def fit_linear_context_for_run(
    context: RecipeContext, dataset: ConceptParquetDataset, model: TwoTowerModel, path: LinearContext
) -> None:
    """Fits to the documents that are trained on, cut into their windows."""
    config = context.get_config_as(LcmTrainConfig)
    section, data = config.linear_context, config.dataset
    every, width = data.hold_out_every, data.reading.max_seq_len

    def windows() -> Iterator[np.ndarray]:
        num_concepts = 0
        for document in dataset.documents(data.train_split):
            if every is not None and document.row % every == 0:
                continue
            for start in range(0, len(document.concepts), width):
                yield document.concepts[start : start + width]
            num_concepts += len(document.concepts)
            if section.max_concepts is not None and num_concepts >= section.max_concepts:
                return

    log.info("Fitting the linear path to the training split.")
    count = fit_linear_context(model, path, windows(), penalty=section.penalty)
    log.info("The linear path starts at a ridge regression on {:,} concepts.", count)
