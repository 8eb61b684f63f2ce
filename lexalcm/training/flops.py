"""Model FLOPs per second, and their share of what the device can do."""

from __future__ import annotations

from typing import Final

import torch

# Dense bfloat16 peaks in FLOP/s as published by the makers, by a part of the name that CUDA reports, most telling first.
_PEAKS: Final = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
    ("V100", 125e12),
    ("T4", 65e12),
)


def peak_flops(device: torch.device) -> float | None:
    """Peak bfloat16 FLOP/s of a CUDA device, ``None`` for a device that is not in the table, CPUs among them."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS if part in name), None)
