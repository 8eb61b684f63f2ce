"""Is the device that a user asks for there?"""

from __future__ import annotations

import torch

from lexalcm.errors import ConfigError


def check_device(name: str) -> torch.device:
    """Returns the device.

    :raises ConfigError: It is not there; the text lists those that are.
    """
    present = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"`--device {name}` is not the name of a device. Present: {', '.join(present)}.") from None
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", 0)
    if device.type != "cpu" and str(device) not in present:
        raise ConfigError(f"`--device {name}` is not present on this machine. Present: {', '.join(present)}.")
    return device
