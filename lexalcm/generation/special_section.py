"""Which concepts stand for start and end of text in a generation.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

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

    end: str | None = None
    """Name of the one that ends a document; it must be nearer than all others in the files."""

    end_text: str | None = None
    """Instead of ``end``: a sentence, which is encoded."""

    def check(self) -> None:
        """:raises ConfigError: A field does not go with another."""
        if (self.start or self.end) and not self.files:
            raise ConfigError("`start` and `end` name concepts of a file: give `--special-concepts` too.")
        if self.files and not (self.start or self.end):
            raise ConfigError("`--special-concepts` needs `--start` or `--end`, the name of one in it.")
        if self.end and self.end_text:
            raise ConfigError("`end` and `end_text` both say what ends a document: give one of them.")

    def load(
        self,
        encoder: SentenceEncoder | None,
        lang: str,
        concept_dim: int,
        *,
        of_model: SpecialVectors = SpecialVectors(),
    ) -> SpecialVectors:
        """
        :param encoder: Needed for ``end_text``, which is in the language ``lang``.
        :param of_model: What holds where nothing else is said.
        :raises DataError: A file is missing or damaged, has no such concept, or one of another width.
        """
        vectors: dict[str, np.ndarray] = {}
        for file in self.files:
            found = load_special_concepts(file)
            vectors |= {name: found.get(name, concept_dim) for name in found.names}
        chosen = [name for name in (self.start, self.end) if name is not None]
        for name in chosen:
            if name not in vectors:
                raise DataError(f"{', '.join(self.files)}: {unknown_name('special concept', name, vectors)}")
        start = of_model.start if self.start is None else torch.from_numpy(vectors[self.start])
        end = of_model.end if self.end is None else torch.from_numpy(vectors[self.end])
        if self.end_text:
            assert encoder is not None
            end = torch.from_numpy(encoder.encode([self.end_text], lang)[0])
        others = [torch.from_numpy(vector) for name, vector in vectors.items() if name not in chosen]
        if of_model.others is not None:
            others += list(of_model.others)
        return SpecialVectors(start=start, end=end, others=torch.stack(others) if others else None)
