"""Builds Meta's base model from its configuration."""

from __future__ import annotations

from fairseq2.logging import log

from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.base_lcm.model import BaseLCM


def create_base_model(config: BaseConfig) -> BaseLCM:
    """:raises ConfigError: The configuration cannot be honoured."""
    config.check()
    for name in config.dead_fields():
        log.warning("Model config - `{}` has no effect, here as in Meta's release.", name)
    return BaseLCM(config)
