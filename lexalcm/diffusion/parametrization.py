"""Clean concept, noise and velocity: each from any other and the noisy concept. The only place that knows them.

With a = alpha-bar, ``noisy = sqrt(a) clean + sqrt(1 - a) noise`` and ``velocity = sqrt(a) noise - sqrt(1 - a) clean``
(Salimans and Ho 2022). ``alpha_cumprod`` lacks the channel axis of the other arguments. Everything is computed in
float32 at least.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["sample", "epsilon", "v_prediction"]
"""What a network is trained to predict: the clean concept, the noise, the velocity."""

OutputForm = Literal["direct", "residual"]
"""``direct``: the network's output is the prediction. ``residual``: clean = sqrt(a) noisy + sqrt(1 - a) output."""


def add_noise(clean: Tensor, noise: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """``sqrt(a) clean + sqrt(1 - a) noise``; ``clean`` may lack ``noise``'s leading dimension."""
    signal, sigma = _roots(alpha_cumprod)
    return signal * precise(clean) + sigma * precise(noise)


def to_clean(
    output: Tensor,
    noisy: Tensor,
    alpha_cumprod: Tensor,
    prediction_type: PredictionType,
    output_form: OutputForm = "direct",
) -> Tensor:
    """The clean concept that a network's output means."""
    output = precise(output)
    if output_form == "residual":
        return residual_to_clean(output, noisy, alpha_cumprod)
    if prediction_type == "epsilon":
        return noise_to_clean(output, noisy, alpha_cumprod)
    if prediction_type == "v_prediction":
        return velocity_to_clean(output, noisy, alpha_cumprod)
    return output


def noise_to_clean(noise: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """Undefined where a = 0: a schedule with zero terminal SNR does not go with noise prediction."""
    signal, sigma = _roots(alpha_cumprod)
    return (precise(noisy) - sigma * noise) / signal


def velocity_to_clean(velocity: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
    signal, sigma = _roots(alpha_cumprod)
    return signal * precise(noisy) - sigma * velocity


def residual_to_clean(residual: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """The residual is minus the velocity."""
    signal, sigma = _roots(alpha_cumprod)
    return signal * precise(noisy) + sigma * residual


def clean_to_noise(clean: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """Undefined where a = 1: a concept without noise tells nothing of it."""
    signal, sigma = _roots(alpha_cumprod)
    return (precise(noisy) - signal * clean) / sigma


def clean_to_velocity(clean: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """Undefined where a = 1."""
    signal, sigma = _roots(alpha_cumprod)
    return (signal * precise(noisy) - clean) / sigma


def noise_to_velocity(noise: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """Undefined where a = 0."""
    signal, sigma = _roots(alpha_cumprod)
    return (noise - sigma * precise(noisy)) / signal


def velocity_to_noise(velocity: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
    signal, sigma = _roots(alpha_cumprod)
    return signal * velocity + sigma * precise(noisy)


def loss_weight(alpha_cumprod: Tensor, prediction_type: PredictionType) -> Tensor:
    """What a squared error of the clean prediction is multiplied by to be that of the predicted quantity.

    For a fixed noisy concept, noise = (noisy - sqrt(a) clean) / sqrt(1 - a), so an error d in clean is one of
    -sqrt(a / (1 - a)) d in the noise; likewise velocity = (sqrt(a) noisy - clean) / sqrt(1 - a) turns it into
    -d / sqrt(1 - a).
    """
    if prediction_type == "epsilon":
        return alpha_cumprod / (1.0 - alpha_cumprod)
    if prediction_type == "v_prediction":
        return 1.0 / (1.0 - alpha_cumprod)
    return torch.ones_like(alpha_cumprod)


def _roots(alpha_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    alpha = precise(alpha_cumprod).unsqueeze(-1)
    return alpha.sqrt(), (1.0 - alpha).sqrt()


def precise(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
