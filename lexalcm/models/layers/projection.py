"""Linear layers with the initialisations and the weight normalisation that Meta's release chooses by name."""

from __future__ import annotations

import math
from typing import Final, Literal

from torch.nn import Linear
from torch.nn.init import trunc_normal_, uniform_, xavier_uniform_, zeros_
from torch.nn.utils.parametrizations import weight_norm

LinearInit = Literal["xavier", "sonar", "zero", "trunc_normal", "kaiming_uniform", "none"]
"""``kaiming_uniform`` and ``none`` are PyTorch's default for linear layers; with the others the bias starts at 0."""

_SONAR_STD: Final = 0.006
"""The standard deviation of raw SONAR embeddings."""

QKV_GAIN: Final = 2**-0.5


def create_linear(
    in_dim: int, out_dim: int, *, bias: bool = True, init: LinearInit = "none", weight_normalization: bool = False
) -> Linear:
    """
    :param weight_normalization: Parametrise each row of the weight by its length and direction (Salimans and Kingma
        2016).
    """
    layer = Linear(in_dim, out_dim, bias=bias)
    initialize(layer, init)
    return normalize_weight(layer) if weight_normalization else layer


def initialize(layer: Linear, init: LinearInit, *, gain: float = 1.0) -> None:
    """Fills a layer that is not parametrised yet; ``gain`` is that of ``xavier``."""
    if init in ("kaiming_uniform", "none"):
        return
    if init == "xavier":
        xavier_uniform_(layer.weight, gain=gain)
    elif init == "sonar":
        bound = _SONAR_STD * math.sqrt(3.0 / layer.in_features)
        uniform_(layer.weight, -bound, bound)
    elif init == "trunc_normal":
        trunc_normal_(layer.weight, std=1e-3)
    else:
        zeros_(layer.weight)
    if layer.bias is not None:
        zeros_(layer.bias)


def normalize_weight(layer: Linear) -> Linear:
    """Adds the parametrisation; the weight keeps its value."""
    return weight_norm(layer)

