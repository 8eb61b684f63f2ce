"""Builds a normalizer from its config."""

from __future__ import annotations

from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.model import ConceptNormalizer


def create_normalizer(config: NormalizerConfig) -> ConceptNormalizer:
    """:raises lexalcm.errors.ConfigError: A field of ``config`` cannot be honoured."""
    config.check()
    return ConceptNormalizer(config.dim, with_fft=config.with_fft, with_clipping=config.clip_proba is not None)
