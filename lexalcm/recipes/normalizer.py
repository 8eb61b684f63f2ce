"""The statistics a new model normalizes with: from a card, or fitted to the run's own data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext
from torch import Tensor

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.normalizer_file import save_normalizer_file
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.errors import CardError, CheckpointError
from lexalcm.models.normalizer.model import ConceptNormalizer
from lexalcm.pipelines.fit_normalizer import fit
from lexalcm.recipes.config import LcmTrainConfig


def normalizer_of_card(name: str, concept_dim: int) -> tuple[Tensor, Tensor]:
    """Returns center and scale of a normalizer's card.

    :raises CardError: The card is another model's.
    :raises CheckpointError: It was fitted on concepts of another dimension.
    """
    normalizer = load_model(name)
    if not isinstance(normalizer, ConceptNormalizer):
        raise CardError(f"`normalizer.name`: card {name} is not a normalizer's, but a {type(normalizer).__name__}'s.")
    if normalizer.with_fft or normalizer.with_clipping:
        raise CardError(f"`normalizer.name`: card {name} transforms or clips, which this model family does not do.")
    if normalizer.dim != concept_dim:
        raise CheckpointError(
            f"`normalizer.name`: card {name} is for concepts of {normalizer.dim} dimensions, but the model's `concept_dim` "
            f"is {concept_dim}."
        )
    return normalizer.center, normalizer.scale


def fit_for_run(context: RecipeContext, dataset: ConceptParquetDataset, concept_dim: int) -> tuple[Tensor, Tensor]:
    """Fits statistics to the training split and keeps them in the run's folder."""
    config = context.get_config_as(LcmTrainConfig)
    section, split = config.normalizer, config.dataset.train_split
    log.info("Fitting a normalizer to the training split ({}).", section.fit)

    def chunks() -> Iterator[np.ndarray]:
        num_concepts = 0
        for document in dataset.documents(split):
            yield document.concepts
            num_concepts += len(document.concepts)
            if section.max_concepts is not None and num_concepts >= section.max_concepts:
                return

    result = fit(chunks(), section.fit)  # type: ignore[arg-type]
    if len(result.center) != concept_dim:
        raise CheckpointError(
            f"The dataset's concepts have {len(result.center)} dimensions, but the model's `concept_dim` is {concept_dim}.\n"
            f"Set --config model.config_overrides.concept_dim={len(result.center)}"
        )
    center, scale = torch.from_numpy(result.center), torch.from_numpy(result.scale)
    file = context.output_dir / "normalizer.safetensors"
    facts = {"method": result.method, "num_concepts": result.num_concepts, "dead_dims": list(result.dead_dims)}
    save_normalizer_file(file, center, scale, facts)
    log.info("Normalizer fitted to {:,} concepts and kept in {}.", result.num_concepts, file)
    return center, scale
