"""When a document is done.

Shapes: n concepts of a document, C dimensions of a concept, all raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lexalcm.errors import ConfigError
from lexalcm.generation.config import GenerationConfig

StopReason = Literal["end_of_text", "repetition", "max_sentences", "one_pass"]
"""The last one is that of a checkpoint which is run once and no more."""


@dataclass(frozen=True)
class SpecialVectors:
    """Concepts that play the role of special tokens."""

    start: Tensor | None = None
    """``[C]``: stands before every prompt."""

    behind: Tensor | None = None
    """``[C]``: stands behind every prompt, as the suffix of the sources in data with targets (Meta's ``[MODEL]:``)."""

    end: Tensor | None = None
    """``[C]``: ends a document."""

    others: Tensor | None = None
    """``[n, C]``: a concept that is nearer to one of these, or to ``start`` or ``behind``, is no end. The published start
    and end have a cosine of 0.95, so that a threshold alone would take the one for the other."""

    def check(self, concept_dim: int) -> None:
        """:raises ConfigError: A vector has another width, or is not finite."""
        for name, dims in (("start", 1), ("behind", 1), ("end", 1), ("others", 2)):
            vector = getattr(self, name)
            if vector is None:
                continue
            if vector.dim() != dims or vector.size(-1) != concept_dim:
                shape = list(vector.shape)
                raise ConfigError(
                    f"The special concept `{name}` has shape {shape}, but concepts are {concept_dim} wide."
                )
            if not torch.isfinite(vector).all():
                raise ConfigError(f"The special concept `{name}` is not finite.")


@dataclass(frozen=True)
class Stop:
    """Why a document is done."""

    reason: StopReason

    detail: str

    cosine: float | None = None
    """To the end concept, or to the earlier concept."""


class StopRules:
    """Decides after every new concept."""

    def __init__(self, config: GenerationConfig, special: SpecialVectors) -> None:
        self._config = config
        self._end = special.end
        self._rivals: Tensor | None = None
        rivals = [given.unsqueeze(0) for given in (special.start, special.behind) if given is not None]
        if special.others is not None:
            rivals.append(special.others)
        if rivals and special.end is not None:
            known = torch.cat(rivals)
            known = known[(known != special.end).any(dim=1)]
            self._rivals = known if len(known) else None

    def check(self, new: Tensor, document: Tensor, num_generated: int) -> Stop | None:
        """
        :param new: ``[C]``.
        :param document: ``[n, C]``: what stands before, the prompt and at least all that ``repetition_window`` asks for.
        :param num_generated: How many concepts of the document were generated before ``new``.
        """
        if num_generated >= self._config.min_sentences:
            stop = self._ends(new) or self._repeats(new, document)
            if stop is not None:
                return stop
        if num_generated + 1 >= self._config.max_sentences:
            return Stop("max_sentences", f"{self._config.max_sentences} sentences, the most that were asked for")
        return None

    def _ends(self, new: Tensor) -> Stop | None:
        threshold = self._config.end_threshold
        if self._end is None or threshold is None:
            return None
        cosine = float(cosine_similarity(new, self._end, dim=-1))
        if cosine < threshold:
            return None
        if self._rivals is not None and float(cosine_similarity(new, self._rivals, dim=-1).max()) >= cosine:
            return None
        return Stop("end_of_text", f"cosine {cosine:.3f} to the end-of-text concept", cosine)

    def _repeats(self, new: Tensor, document: Tensor) -> Stop | None:
        threshold, window = self._config.repetition_threshold, self._config.repetition_window
        if threshold is None or not len(document):
            return None
        earlier = document if window is None else document[-window:]
        cosine, back = cosine_similarity(new, earlier, dim=-1).max(dim=0)
        if float(cosine) < threshold:
            return None
        distance = len(earlier) - int(back)
        where = "the sentence before" if distance == 1 else f"the sentence {distance} before"
        return Stop("repetition", f"cosine {float(cosine):.3f} to {where}", float(cosine))
