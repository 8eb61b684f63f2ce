"""Timestep features and the MLP that embeds them, float32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from lexalcm.models.layers.precision import precise_linear


class TimestepEncoder(Module):
    """``fc2(SiLU(fc1([sin, cos](t * 10000^(-k / (E/2))))))``, sine first (spec of LexaLCM-Pre1, 2.7)."""

    def __init__(self, feature_dim: int, model_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.fc1 = Linear(feature_dim, feature_dim)
        self.fc2 = Linear(feature_dim, model_dim)

    def forward(self, timesteps: Tensor) -> Tensor:
        """:param timesteps: int64, any shape.  :returns: float32 (float64 for float64 weights), ``[..., M]``."""
        dtype = torch.float64 if self.fc1.weight.dtype == torch.float64 else torch.float32
        half = self.feature_dim // 2
        exponent = torch.arange(half, dtype=dtype, device=timesteps.device) / half
        angles = timesteps.to(dtype).unsqueeze(-1) * torch.exp(-math.log(10000.0) * exponent)
        features = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return precise_linear(F.silu(precise_linear(features, self.fc1)), self.fc2)
