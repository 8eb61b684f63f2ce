"""Whether a machine can compute in half precision, or only imitates it."""

from __future__ import annotations

from typing import Final

import torch
from fairseq2.recipe.config import MixedPrecisionConfig

_WITHOUT_HALF: Final = ("DEFAULT", "AVX2")


def is_asked_for(precision: MixedPrecisionConfig) -> bool:
    """Tells whether a recipe has autocast on."""
    return precision.mode == "auto" and precision.dtype != torch.float32


def is_imitated(device: torch.device) -> bool:
    """Tells whether a device is a CPU without instructions for half precision: many times slower than float32."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in _WITHOUT_HALF
