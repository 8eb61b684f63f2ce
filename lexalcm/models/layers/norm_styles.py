"""The norms that Meta's release chooses by name, all with eps 1e-5 and float32 statistics."""

from __future__ import annotations

from functools import partial
from typing import Final, Literal

from torch.nn import Module

from lexalcm.models.layers.modulation import AdaptiveLayerNorm, AdaptiveRMSNorm
from lexalcm.models.layers.precision import PreciseLayerNorm, RMSNorm

NormStyle = Literal["standard", "fp32", "rms", "unit"]
"""LayerNorm with weight and bias, with weight alone, RMSNorm with weight, LayerNorm without parameters."""

_EPS: Final = 1e-5


def create_norm(style: NormStyle, dim: int, *, adaptive: bool = False) -> Module:
    """
    :param adaptive: Its ``forward`` takes scale and shift of a timestep too.
    """
    layer_norm = partial(AdaptiveLayerNorm if adaptive else PreciseLayerNorm, dim, eps=_EPS)
    if style == "standard":
        return layer_norm()
    if style == "fp32":
        return layer_norm(bias=False)
    if style == "unit":
        return layer_norm(elementwise_affine=False)
    return (AdaptiveRMSNorm if adaptive else RMSNorm)(dim, eps=_EPS)
