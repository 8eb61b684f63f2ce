"""Builds Meta's two-tower model from its configuration."""

from __future__ import annotations

from fairseq2.logging import log
from torch.nn.init import normal_, zeros_

from lexalcm.models.two_tower.config import TwoTowerConfig
from lexalcm.models.two_tower.model import TwoTowerDiffusionLCM


def create_two_tower_model(config: TwoTowerConfig) -> TwoTowerDiffusionLCM:
    """
    Modulators start at 0, so that every layer of the denoiser begins as the identity; the timestep's MLP at N(0, 0.02).

    :raises ConfigError: The configuration cannot be honoured.
    """
    config.check()
    for name in config.dead_fields():
        log.warning("Model config - `{}` has no effect, here as in Meta's release.", name)
    for name in config.sampling_fields():
        log.warning("Model config - `{}` is a matter of sampling: set it in the sampler's configuration.", name)
    model = TwoTowerDiffusionLCM(config)
    for layer in (model.denoiser.embed_time.fc1, model.denoiser.embed_time.fc2):
        normal_(layer.weight, std=0.02)
        zeros_(layer.bias)
    for denoiser_layer in model.denoiser.layers:
        zeros_(denoiser_layer.modulator.fc.weight)
        zeros_(denoiser_layer.modulator.fc.bias)
    return model
