"""Special concepts: vectors that play the role of special tokens, such as start and end of text.

A file may tell what each of them is: JSON under ``special_concepts`` in its metadata,
``{"concepts": {NAME: {"role": ..., "lang": ..., "sentence": ..., "encoder": ...}}}``. Those of one role say the same in
several languages.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lexalcm.errors import DataError, unknown_name

_METADATA: Final = "special_concepts"
_CONCEPTS: Final = "concepts"


class SpecialConcepts:
    """Named vectors, float32 ``[C]`` each."""

    def __init__(
        self, vectors: Mapping[str, np.ndarray], *, source: str, facts: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self._vectors = dict(vectors)
        self._source = source
        self.facts = {name: dict(told) for name, told in (facts or {}).items() if name in vectors}
        """What a file tells of them by name, each time ``role``, ``lang``, ``sentence`` and ``encoder``."""

    @property
    def vectors(self) -> Mapping[str, np.ndarray]:
        """By name: those that a file tells of first, in its order, then the others, sorted."""
        return {name: self._vectors[name] for name in dict.fromkeys([*self.facts, *self.names])}

    @property
    def names(self) -> list[str]:
        return sorted(self._vectors)

    def role_of(self, name: str) -> str:
        """What it stands for; its name, where a file does not tell."""
        return self.facts.get(name, {}).get("role", name)

    def get(self, name: str, concept_dim: int) -> np.ndarray:
        """:raises DataError: No such name, or a vector of another width."""
        vector = self._vectors.get(name)
        if vector is None:
            raise DataError(f"{self._source}: {unknown_name('special concept', name, self._vectors)}")
        if vector.shape != (concept_dim,):
            raise DataError(
                f"{self._source}: the special concept `{name}` is {vector.shape[-1]} wide, but the concepts "
                f"that it is for are {concept_dim} wide. Encode it with the encoder that made them."
            )
        return vector


def load_special_concepts(path: str | Path) -> SpecialConcepts:
    """Reads a safetensors file: one tensor a name, ``[C]`` or ``[1, C]``. A lone tensor ``embedding``, as LexaLCM
    publishes them, is called by the file's name. Of a folder, what all its safetensors files hold.

    :raises DataError: A file is missing, not safetensors, or holds something else than finite vectors; or two files of
        a folder hold one name.
    """
    path = Path(path)
    if not path.is_dir():
        return _load_file(path)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise DataError(f"{path} holds no special concepts: no file in it ends in .safetensors.")
    vectors: dict[str, np.ndarray] = {}
    facts: dict[str, Mapping[str, str]] = {}
    for file in files:
        found = _load_file(file)
        twice = sorted(vectors.keys() & found.vectors.keys())
        if twice:
            raise DataError(f"{path}: the special concept `{twice[0]}` is in {file.name} and in another file too.")
        vectors |= found.vectors
        facts |= found.facts
    return SpecialConcepts(vectors, source=str(path), facts=facts)


def write_special_concepts(
    path: Path,
    vectors: Mapping[str, np.ndarray],
    facts: Mapping[str, Mapping[str, str]],
    *,
    encoder: Mapping[str, Any],
) -> None:
    """Writes vectors ``[C]`` as float32 with what is known of them; a file that stands there is replaced only by a
    complete one.

    :param encoder: Plain values that tell how they were made.
    """
    # Under one key: safetensors writes several in an order that changes from process to process.
    told = json.dumps({_CONCEPTS: facts, "encoder": encoder}, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        tensors = {name: np.ascontiguousarray(vector, np.float32) for name, vector in vectors.items()}
        save_file(tensors, aside, metadata={_METADATA: told})
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _load_file(path: Path) -> SpecialConcepts:
    if not path.is_file():
        raise DataError(f"The special concepts {path} do not exist (looked at {path.resolve()}).")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, KeyError, NotImplementedError) as ex:
        # The last two: types that torch does not have.
        raise DataError(f"{path} is not a safetensors file of special concepts: {ex}.") from None
    vectors = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise DataError(f"{path}: `{name}` must be of floating-point numbers, but is of {tensor.dtype}.")
        vector = tensor.to(torch.float32).reshape(-1).numpy()
        if tensor.dim() not in (1, 2) or tensor.numel() != tensor.size(-1) or not np.isfinite(vector).all():
            raise DataError(f"{path}: `{name}` must be one finite vector, but has shape {list(tensor.shape)}.")
        vectors[path.stem if set(tensors) == {"embedding"} else name] = vector
    return SpecialConcepts(vectors, source=str(path), facts=_read_facts(metadata.get(_METADATA), path))


def _read_facts(text: str | None, path: Path) -> dict[str, dict[str, str]]:
    if text is None:
        return {}
    try:
        facts = json.loads(text)[_CONCEPTS]
        return {str(name): {str(key): str(value) for key, value in told.items()} for name, told in facts.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataError(f"{path}: what its metadata tells under `{_METADATA}` is not what lexalcm writes.") from None
