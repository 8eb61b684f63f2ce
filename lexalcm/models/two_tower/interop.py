"""State dicts of the family: names inside the model are those of Meta's checkpoints."""

from __future__ import annotations

from lexalcm.models.two_tower.config import TwoTowerConfig
from lexalcm.models.unwrap import unwrap_state_dict


def convert_two_tower_state_dict(state_dict: dict[str, object], config: TwoTowerConfig) -> dict[str, object]:
    """What fairseq2's loader calls on every checkpoint: ours pass, Meta's lose their wrapper."""
    return unwrap_state_dict(state_dict)
