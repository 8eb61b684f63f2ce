"""Which concepts stand for start and end of text in a generation.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lexalcm.data.special_concepts import load_special_concepts
from lexalcm.errors import ConfigError, DataError, unknown_name
from lexalcm.generation.stop_rules import SpecialVectors
from lexalcm.text.interface import SentenceEncoder


@dataclass(kw_only=True)
class SpecialSection:
    """Which concepts stand for start and end of text; by default those that the model's card carries."""

    files: tuple[str, ...] = ()
    """Safetensors files with named vectors."""

    start: str | None = None
    """Name of the one that is put before every prompt."""

    behind: str | None = None
    """Name of the one that is put behind every prompt, as behind the sources of data with targets."""

    behind_text: str | None = None
    """Instead of ``behind``: a sentence, which is encoded."""

    end: str | None = None
    """Name of the one that ends a document; it must be nearer than all others in the files."""

    end_text: str | None = None
    """Instead of ``end``: a sentence, which is encoded."""

    def check(self) -> None:
        """:raises ConfigError: A field does not go with another."""
        named = self.start or self.behind or self.end
        if named and not self.files:
            raise ConfigError("`start`, `behind` and `end` name concepts of a file: give `--special-concepts` too.")
        if self.files and not named:
            raise ConfigError("`--special-concepts` needs `--start`, `--behind` or `--end`, the name of one in it.")
        if self.end and self.end_text:
            raise ConfigError("`end` and `end_text` both say what ends a document: give one of them.")
        if self.behind and self.behind_text:
            raise ConfigError("`behind` and `behind_text` both say what stands behind a prompt: give one of them.")

    @property
    def has_text(self) -> bool:
        """Whether something is to be encoded."""
        return bool(self.end_text or self.behind_text)

    def load(
        self,
        encoder: SentenceEncoder | None,
        lang: str,
        concept_dim: int,
        *,
        of_model: SpecialVectors = SpecialVectors(),
    ) -> SpecialVectors:
        """
        :param encoder: Needed for texts, which are in the language ``lang``.
        :param of_model: What holds where nothing else is said.
        :raises DataError: A file is missing or damaged, has no such concept, or one of another width.
        """
        vectors: dict[str, np.ndarray] = {}
        roles: dict[str, str] = {}
        for file in self.files:
            found = load_special_concepts(file)
            vectors |= {name: found.get(name, concept_dim) for name in found.names}
            roles |= {name: found.role_of(name) for name in found.names}
        chosen = [name for name in (self.start, self.behind, self.end) if name is not None]
        for name in chosen:
            if name not in vectors:
                raise DataError(f"{', '.join(self.files)}: {unknown_name('special concept', name, vectors)}")

        def pick(name: str | None, text: str | None, usual: Tensor | None) -> Tensor | None:
            if text:
                assert encoder is not None
                return torch.from_numpy(encoder.encode([text], lang)[0])
            return usual if name is None else torch.from_numpy(vectors[name])

        # The end in another language lies next to the end, and means it too.
        alike = {name for name, role in roles.items() if self.end is not None and role == roles[self.end]}
        others = [torch.from_numpy(vectors[name]) for name in vectors if name not in {*chosen, *alike}]
        if of_model.others is not None:
            others += list(of_model.others)
        return SpecialVectors(
            start=pick(self.start, None, of_model.start),
            behind=pick(self.behind, self.behind_text, of_model.behind),
            end=pick(self.end, self.end_text, of_model.end),
            others=torch.stack(others) if others else None,
        )
