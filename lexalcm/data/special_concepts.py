"""Special concepts: vectors that play the role of special tokens, such as start and end of text.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lexalcm.errors import DataError, unknown_name


class SpecialConcepts:
    """Named vectors, float32 ``[C]`` each."""

    def __init__(self, vectors: Mapping[str, np.ndarray], *, source: str) -> None:
        self._vectors = dict(vectors)
        self._source = source

    @property
    def names(self) -> list[str]:
        return sorted(self._vectors)

    def get(self, name: str, concept_dim: int) -> np.ndarray:
        """:raises DataError: No such name, or a vector of another width."""
        vector = self._vectors.get(name)
        if vector is None:
            raise DataError(f"{self._source}: {unknown_name('special concept', name, self._vectors)}")
        if vector.shape != (concept_dim,):
            raise DataError(
                f"{self._source}: the special concept `{name}` is {vector.shape[-1]} wide, but the dataset's concepts "
                f"are {concept_dim} wide. Encode it with the encoder that made the dataset."
            )
        return vector


def load_special_concepts(path: str | Path) -> SpecialConcepts:
    """Reads a safetensors file: one tensor a name, ``[C]`` or ``[1, C]``. A lone tensor ``embedding``, as LexaLCM
    publishes them, is called by the file's name.

    :raises DataError: The file is missing, not safetensors, or holds something else than finite vectors.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"The special concepts {path} do not exist (looked at {path.resolve()}).")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as ex:
        # The last one: types that torch does not have.
        raise DataError(f"{path} is not a safetensors file of special concepts: {ex}.") from None
    vectors = {}
    for name, tensor in tensors.items():
        vector = tensor.to(torch.float32).reshape(-1).numpy()
        if tensor.dim() not in (1, 2) or tensor.numel() != tensor.size(-1) or not np.isfinite(vector).all():
            raise DataError(f"{path}: `{name}` must be one finite vector, but has shape {list(tensor.shape)}.")
        vectors[path.stem if set(tensors) == {"embedding"} else name] = vector
    return SpecialConcepts(vectors, source=str(path))
