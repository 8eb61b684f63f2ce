"""The statistics a new model normalizes with: from a card, or fitted to the run's own data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from fairseq2.logging import log
from fairseq2.recipe.base import RecipeContext

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.normalizer_file import save_normalizer_file
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.errors import CardError, CheckpointError, ConfigError
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.model import ConceptNormalizer
from lexalcm.models.normalizer.statistics import NormalizerStatistics
from lexalcm.pipelines.fit_normalizer import fit
from lexalcm.pipelines.fit_rule import fit_rule
from lexalcm.recipes.config import LcmTrainConfig


def statistics_of_card(name: str, concept_dim: int) -> NormalizerStatistics:
    """Returns what a normalizer's card holds, ours or one of Meta's release.

    :raises CardError: The card is another model's.
    :raises CheckpointError: It was fitted on concepts of another dimension.
    """
    normalizer = load_model(name)
    if not isinstance(normalizer, ConceptNormalizer):
        raise CardError(f"`normalizer.name`: card {name} is not a normalizer's, but a {type(normalizer).__name__}'s.")
    if normalizer.dim != concept_dim:
        raise CheckpointError(
            f"`normalizer.name`: card {name} is for concepts of {normalizer.dim} dimensions, but the model's `concept_dim` "
            f"is {concept_dim}."
        )
    statistics = normalizer.statistics
    if (fault := statistics.fault()) is not None:
        raise CheckpointError(f"`normalizer.name`: card {name} holds statistics that cannot be used: {fault}.")
    return statistics


def fit_statistics_for_run(
    context: RecipeContext,
    dataset: ConceptParquetDataset,
    concept_dim: int,
    *,
    with_fft: bool = False,
    clip_proba: float | None = None,
) -> NormalizerStatistics:
    """Fits statistics to the training split and keeps them in the run's folder.

    :param with_fft: As the model's own normalizer has it, and ``clip_proba`` too.
    """
    config = context.get_config_as(LcmTrainConfig)
    section, split = config.normalizer, config.dataset.train_split
    assert section.fit is not None
    log.info("Fitting a normalizer to the training split ({}).", section.fit)

    def chunks() -> Iterator[np.ndarray]:
        num_concepts = 0
        for document in dataset.documents(split):
            yield document.concepts
            num_concepts += len(document.concepts)
            if section.max_concepts is not None and num_concepts >= section.max_concepts:
                return

    result = fit(chunks(), fit_rule(section.fit, with_fft=with_fft, clip_proba=clip_proba))
    if len(result.center) != concept_dim:
        raise CheckpointError(
            f"The dataset's concepts have {len(result.center)} dimensions, but the model's `concept_dim` is {concept_dim}.\n"
            f"Set --config model.config_overrides.concept_dim={len(result.center)} (`sonar_embed_dim` in Meta's families)."
        )
    file = context.output_dir / "normalizer.safetensors"
    facts = {"method": result.method, "num_concepts": result.num_concepts, "dead_dims": list(result.dead_dims)}
    save_normalizer_file(file, result.statistics, facts)
    log.info("Normalizer fitted to {:,} concepts and kept in {}.", result.num_concepts, file)
    return result.statistics


def check_statistics(statistics: NormalizerStatistics, wanted: NormalizerConfig) -> None:
    """
    :param wanted: How the model normalises.
    :raises ConfigError: The statistics belong to another kind of normalizer.
    """
    for what, has, asked in (
        ("clip values", statistics.with_clipping, wanted.clip_proba is not None),
        ("transform concepts", statistics.with_fft, wanted.with_fft),
    ):
        if has is not None and has != asked:
            raise ConfigError(
                f"The statistics that `normalizer` names {'' if has else 'do not '}{what}, but the model's normalizer does"
                f"{'' if asked else ' not'}.\nMeta's families take that from the card in "
                f"model.config_overrides.sonar_normalizer_name; LexaLCM-Pre1 does neither."
            )


def no_normalizer() -> ConfigError:
    """What to say when a new model has no statistics."""
    return ConfigError(
        "No normalizer is named, and a model does not learn on raw embeddings, whose variance is tiny.\n"
        "Set `normalizer.path` to a file of `fairseq2 lcm fit-normalizer`, `normalizer.fit: robust` to fit at the start,\n"
        "or `normalizer.identity: true` if your embeddings are normalised already."
    )
