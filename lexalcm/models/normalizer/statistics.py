"""What a fit finds out about a corpus, and a normalizer holds.

Shapes: C the dimensions of a concept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NormalizerStatistics:
    """Center and scale of every dimension, and the bounds of normalised values where they are clamped."""

    center: Tensor
    """``[C]``."""

    scale: Tensor
    """``[C]``, positive."""

    clip_min: Tensor | None = None
    """``[C]``, of normalised values; ``None`` without clipping."""

    clip_max: Tensor | None = None
    """``[C]``."""

    with_fft: bool | None = False
    """Whether they belong to the Fourier transform of a concept; ``None`` when a file does not say."""

    @property
    def dim(self) -> int:
        return len(self.center)

    @property
    def with_clipping(self) -> bool:
        return self.clip_min is not None or self.clip_max is not None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by the names that files and normalizers have for them."""
        named = {"center": self.center, "scale": self.scale, "clip_min": self.clip_min, "clip_max": self.clip_max}
        return {name: value for name, value in named.items() if value is not None}

    def fault(self) -> str | None:
        """Tells why they cannot be used; ``None`` when they can."""
        if (self.clip_min is None) != (self.clip_max is None):
            return "`clip_min` and `clip_max` must be there both or not at all"
        for name, value in self.tensors().items():
            if value.dim() != 1 or value.shape != self.center.shape:
                return f"`{name}` must be one vector like `center`, but has shape {tuple(value.shape)}"
            if not bool(torch.isfinite(value).all()):
                return f"`{name}` must be finite"
        if not bool((self.scale > 0).all()):
            return "`scale` must be positive"
        if self.clip_min is not None and self.clip_max is not None and bool((self.clip_min > self.clip_max).any()):
            return "`clip_min` must be at most `clip_max`"
        return None
