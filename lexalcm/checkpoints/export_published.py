"""The layout in which LexaLCM-Pre1 was published: Hugging Face's ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from safetensors.torch import save_file
from torch import Tensor

from lexalcm.checkpoints.export_files import ExportFiles
from lexalcm.checkpoints.locate import SAFETENSORS_FILE
from lexalcm.checkpoints.published_folder import CONFIG_FILE, EXPORTED_BY
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.interop import normalizes, to_published
from lexalcm.models.pre1.published_config import to_published_config

_WIRING: Final = (
    "The published code reads these files, but wires the same tensors in another way: what it computes is not this "
    "model's."
)
_STATISTICS: Final = (
    "The statistics of concepts have no place in the published layout and keep our names (normalizer.center and "
    "normalizer.scale), which the published code leaves out."
)


def published_files(config: Pre1Config, state: Mapping[str, Tensor]) -> ExportFiles:
    """:raises ConfigError: The layout has no place for something that the model needs."""
    fields = to_published_config(config)
    tensors = {key: value.contiguous() for key, value in to_published(state, config).items()}
    facts = {"format": "pt", EXPORTED_BY[0]: EXPORTED_BY[1]}
    return ExportFiles(
        {
            SAFETENSORS_FILE: lambda path: save_file(tensors, path, metadata=facts),
            CONFIG_FILE: lambda path: path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8"),
        },
        (_WIRING, _STATISTICS) if normalizes(state) else (_WIRING,),
    )
