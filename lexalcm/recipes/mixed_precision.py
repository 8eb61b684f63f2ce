"""Whether a machine can compute in half precision, or only imitates it."""

from __future__ import annotations

from typing import Final

import torch
from fairseq2.recipe.config import MixedPrecisionConfig

_WITHOUT_HALF: Final = ("DEFAULT", "AVX2")


def is_imitated(precision: MixedPrecisionConfig, device: torch.device) -> bool:
    """Tells whether autocast would run, on a CPU without instructions for it: many times slower than float32."""
    if precision.mode != "auto" or precision.dtype == torch.float32 or device.type != "cpu":
        return False
    return torch.backends.cpu.get_cpu_capability() in _WITHOUT_HALF
