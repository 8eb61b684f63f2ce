"""State dicts of normalizers: ours (flat) and those of the reference release."""

from __future__ import annotations

from torch import Tensor

from lexalcm.models.normalizer.config import NormalizerConfig


def convert_normalizer_state_dict(state_dict: dict[str, object], config: NormalizerConfig) -> dict[str, object]:
    """Reduces either layout to the buffers of the module.

    Ours is ``{center, scale[, clip_min, clip_max]}``; the reference wraps the same names as ``{"model": {...},
    "dataset_mixture": [...]}``. What the buffers may not lack or add is checked by the caller, who copies them.
    """
    inner = state_dict.get("model")
    return dict(inner) if isinstance(inner, dict) else dict(state_dict)


def to_reference_state_dict(state_dict: dict[str, Tensor], *, sources: list[str]) -> dict[str, object]:
    """The layout of the reference release, ready for ``torch.save``.

    :param sources: Names of the datasets that the statistics were fitted on.
    """
    return {"model": dict(state_dict), "dataset_mixture": list(sources)}
