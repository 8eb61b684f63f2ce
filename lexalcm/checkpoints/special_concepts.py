"""Special concepts that a model was trained with: they travel with its weights, and its card names them.

A card says ``special_concepts: {file: special_concepts.safetensors, prefix: NAME, suffix: NAME}``. The file may hold
more than those: whether a concept means the end of a text shows only in comparison with the others. It may tell what
each is, as those of ``fairseq2 lcm special-concepts`` do.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from fairseq2.assets import AssetCard
from safetensors.torch import load_file, save_file
from torch import Tensor

from lexalcm.checkpoints.described import card_place
from lexalcm.checkpoints.safetensors_file import read_safetensors_header
from lexalcm.errors import CardError, CheckpointError, near_match, unknown_name

SPECIAL_FIELD: Final = "special_concepts"
"""Of a model's card."""

SPECIAL_FILE: Final = "special_concepts.safetensors"

_FILE: Final = "file"
_CONCEPTS: Final = "concepts"
_ROLES: Final = ("prefix", "suffix", "target_suffix")
"""What stands before a document, after it, and after the target of one that has a target."""


@dataclass(frozen=True)
class SpecialConceptsOfModel:
    """What stood around the documents that a model was trained on."""

    vectors: Mapping[str, Tensor]
    """All of the file by name, float32 ``[C]``, raw."""

    prefix: str | None = None

    suffix: str | None = None

    target_suffix: str | None = None

    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What a file tells of them by name: ``role``, ``lang``, ``sentence``, ``encoder``."""

    @property
    def start(self) -> Tensor | None:
        """What every document begins with."""
        return None if self.prefix is None else self.vectors[self.prefix]

    @property
    def behind(self) -> Tensor | None:
        """What every source ended with, in data with targets."""
        return None if self.target_suffix is None or self.suffix is None else self.vectors[self.suffix]

    @property
    def end(self) -> Tensor | None:
        """What the model was taught to predict when a text is over."""
        name = self._end_name
        return None if name is None else self.vectors[name]

    @property
    def others(self) -> Tensor | None:
        """The rest of the file, ``[N, C]``; ``None`` if there is none. The end in another language is left out: it lies
        next to the end, and means it too."""
        end = self._end_name
        rest = [
            vector
            for name, vector in self.vectors.items()
            if name != self.prefix and (end is None or self._role_of(name) != self._role_of(end))
        ]
        return torch.stack(rest) if rest else None

    def _role_of(self, name: str) -> str:
        return self.facts.get(name, {}).get("role", name)

    @property
    def _end_name(self) -> str | None:
        # The suffix ends the source there, which is given.
        return self.suffix if self.target_suffix is None else self.target_suffix


def save_special_concepts(file: Path, special: SpecialConceptsOfModel) -> None:
    """Writes them with their roles noted in the file; one that stands there is replaced only by a complete one."""
    roles = _roles_of(special)
    tensors = {name: vector.to(torch.float32).contiguous() for name, vector in special.vectors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    told = {SPECIAL_FIELD: json.dumps({_CONCEPTS: special.facts}, ensure_ascii=False)} if special.facts else {}
    save_file(tensors, partial, metadata={**roles, **told})
    os.replace(partial, file)


def special_field(special: SpecialConceptsOfModel, name: str) -> dict[str, str]:
    """What a card says of a file that :func:`save_special_concepts` wrote under ``name``."""
    return {_FILE: name, **_roles_of(special)}


def special_field_of_file(file: Path, name: str) -> dict[str, str]:
    """What a card says of a file that :func:`save_special_concepts` wrote.

    :param name: By which the card will name the file.
    :raises CheckpointError: It is damaged.
    """
    facts = read_safetensors_header(file, "special concepts").facts
    return {_FILE: name, **{role: facts[role] for role in _ROLES if role in facts}}


def special_field_of(card: AssetCard, name: str) -> dict[str, str] | None:
    """What a copy of the card says when the file is called ``name``; ``None`` for a card without special concepts."""
    fields, _ = _read_field(card)
    return None if fields is None else {**fields, _FILE: name}


def locate_special_concepts(card: AssetCard) -> Path | None:
    """Returns the file that a card names; a relative path counts from the folder of the card that says it.

    :raises CardError: The card says it in a form that cannot be used.
    :raises CheckpointError: The file is not there.
    """
    fields, holder = _read_field(card)
    if fields is None:
        return None
    folder = holder.metadata.get("__base_path__")
    file = folder / fields[_FILE] if isinstance(folder, Path) else Path(fields[_FILE])
    if not file.is_file():
        raise CheckpointError(f"{card_place(card)}: `{SPECIAL_FIELD}.{_FILE}` names {file}, which does not exist.")
    return file


def special_concepts_of(card: AssetCard, concept_dim: int | None = None) -> SpecialConceptsOfModel | None:
    """Reads the special concepts that a model's card names, ``None`` where it names none.

    :param concept_dim: C of the model; None takes what the file has.
    :raises CardError: The card names one that the file does not hold, or has a field that there is not.
    :raises CheckpointError: The file is missing, damaged, or holds something else than finite vectors of C dimensions.
    """
    file = locate_special_concepts(card)
    if file is None:
        return None
    fields, _ = _read_field(card)
    assert fields is not None
    header = read_safetensors_header(file, "special concepts")
    names = header.names
    roles = {role: fields[role] for role in _ROLES if role in fields}
    for role, name in roles.items():
        if name not in names:
            message = unknown_name(f"special concept of {file}", name, names)
            raise CardError(f"{card_place(card)}: `{SPECIAL_FIELD}.{role}`: {message}")
    vectors = {name: _as_vector(tensor, name, file) for name, tensor in load_file(file).items()}
    for name, vector in vectors.items():
        dim = concept_dim if concept_dim is not None else len(next(iter(vectors.values())))
        if len(vector) != dim:
            raise CheckpointError(
                f"{file}: the special concept `{name}` is {len(vector)} wide, but the concepts of {card_place(card)} "
                f"are {dim} wide."
            )
    return SpecialConceptsOfModel(vectors, **roles, facts=_read_facts(header.facts.get(SPECIAL_FIELD), file))


def _roles_of(special: SpecialConceptsOfModel) -> dict[str, str]:
    return {role: name for role in _ROLES if (name := getattr(special, role)) is not None}


def _read_facts(text: str | None, file: Path) -> dict[str, dict[str, str]]:
    if text is None:
        return {}
    try:
        return {name: dict(told) for name, told in json.loads(text)[_CONCEPTS].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{file}: what its metadata tells under `{SPECIAL_FIELD}` is not what lexalcm writes."
        ) from None


def _as_vector(tensor: Tensor, name: str, file: Path) -> Tensor:
    vector = tensor.to(torch.float32).reshape(-1)
    if tensor.dim() not in (1, 2) or tensor.numel() != tensor.size(-1) or not bool(vector.isfinite().all()):
        raise CheckpointError(f"{file}: `{name}` must be one finite vector, but has shape {list(tensor.shape)}.")
    return vector


def _read_field(card: AssetCard) -> tuple[dict[str, str] | None, AssetCard]:
    """What the card says, or the first that it builds on and that says something; and that card."""
    holder = card
    while SPECIAL_FIELD not in holder.metadata and holder.base is not None:
        holder = holder.base
    value: Any = holder.metadata.get(SPECIAL_FIELD)
    if value is None:
        return None, holder
    where = f"{card_place(holder)}: `{SPECIAL_FIELD}"
    if not isinstance(value, Mapping) or _FILE not in value:
        raise CardError(f"{where}` must be a mapping with a `{_FILE}`, but is {str(value)[:80]!r}.")
    for name, text in value.items():
        known = (_FILE, *_ROLES)
        if name not in known:
            hint = near_match(str(name), known)
            raise CardError(f"{where}` has no field `{name}`.{hint}\nFields: {', '.join(known)}.")
        if not isinstance(text, str) or not text:
            raise CardError(f"{where}.{name}` must be a text, but is {text!r}.")
    return dict(value), holder
