"""State dicts of the family: names inside the model are those of Meta's checkpoints."""

from __future__ import annotations

from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.unwrap import unwrap_state_dict


def convert_base_state_dict(state_dict: dict[str, object], config: BaseConfig) -> dict[str, object]:
    """What fairseq2's loader calls on every checkpoint: ours pass, Meta's lose their wrapper."""
    return unwrap_state_dict(state_dict)
