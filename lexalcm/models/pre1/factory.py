"""Builds a Pre1 model from its configuration."""

from __future__ import annotations

from torch.nn.init import zeros_

from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.model import Pre1Model


def create_pre1_model(config: Pre1Config) -> Pre1Model:
    """
    Linear layers keep PyTorch's initialisation, norms start at 1, modulators at 0: the denoiser begins as the identity
    between its nets.

    :raises ConfigError: The configuration cannot be honoured.
    """
    config.check()
    model = Pre1Model(config)
    for layer in model.denoiser.layers:
        for modulator in (layer.self_attn_modulator, layer.cross_attn_modulator, layer.ffn_modulator):
            zeros_(modulator.weight)
            zeros_(modulator.bias)
    return model
