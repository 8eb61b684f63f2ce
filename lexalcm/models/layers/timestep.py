"""Timestep features and the MLP that embeds them, float32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from lexalcm.models.layers.precision import precise_linear


class TimestepEncoder(Module):
    """``fc2(SiLU(fc1([sin, cos](t * 10000^(-k / (E/2))))))`` (spec of LexaLCM-Pre1, 2.7)."""

    def __init__(
        self, feature_dim: int, model_dim: int, *, inner_dim: int | None = None, cosine_first: bool = False
    ) -> None:
        """
        :param feature_dim: E, even.
        :param inner_dim: Between the two layers; E by default.
        :param cosine_first: As Meta's release has it; otherwise the sines come first.
        """
        super().__init__()
        self.feature_dim = feature_dim
        self.cosine_first = cosine_first
        inner_dim = feature_dim if inner_dim is None else inner_dim
        self.fc1 = Linear(feature_dim, inner_dim)
        self.fc2 = Linear(inner_dim, model_dim)

    def forward(self, timesteps: Tensor) -> Tensor:
        """:param timesteps: int64, any shape.  :returns: float32 (float64 for float64 weights), ``[..., M]``."""
        dtype = torch.float64 if self.fc1.weight.dtype == torch.float64 else torch.float32
        half = self.feature_dim // 2
        exponent = torch.arange(half, dtype=dtype, device=timesteps.device) / half
        angles = timesteps.to(dtype).unsqueeze(-1) * torch.exp(-math.log(10000.0) * exponent)
        parts = [angles.sin(), angles.cos()]
        features = torch.cat(parts[::-1] if self.cosine_first else parts, dim=-1)
        return precise_linear(F.silu(precise_linear(features, self.fc1)), self.fc2)
