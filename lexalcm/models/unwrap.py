"""Wrappers around a model's state: the trainer's mapping and the prefix of data parallelism."""

from __future__ import annotations

from typing import Final

_DDP_PREFIX: Final = "module."


def unwrap_state_dict(state_dict: dict[str, object]) -> dict[str, object]:
    """Returns the state inside ``{"model": state, "model_key": "model"}``, or ``state_dict`` itself, without the prefix
    that DDP puts before every name."""
    inner = state_dict.get(str(state_dict.get("model_key", "model")))
    if isinstance(inner, dict):
        state_dict = inner
    if state_dict and all(key.startswith(_DDP_PREFIX) for key in state_dict):
        return {key.removeprefix(_DDP_PREFIX): value for key, value in state_dict.items()}
    return dict(state_dict)
