"""How documents are continued, but for the sampler: lengths, stop rules, seed and batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lexalcm.errors import ConfigError


@dataclass(kw_only=True)
class GenerationConfig:
    """Lengths count generated sentences; Meta's names and defaults stand in brackets where they differ."""

    max_sentences: int = 10
    """At most this many (``max_gen_len``)."""

    min_sentences: int = 1
    """No stop rule fires before this many stand before the one that fires it (``min_gen_len``)."""

    end_threshold: float | None = 0.9
    """Cosine to the end-of-text concept from which a new concept counts as it, if it is nearer to it than to any other
    special concept (``eos_threshold``); ``None``: never."""

    repetition_threshold: float | None = 0.98
    """Cosine to an earlier concept of the document from which a new one counts as its repetition
    (``stop_on_repetition_cosine_threshold``, ``None``); ``None``: never."""

    repetition_window: int | None = None
    """How many earlier concepts are looked at; ``None``: all (1)."""

    include_stop: bool = False
    """Whether the concept that fires a stop rule is part of the result (``not trim_hypotheses or include_eos_token``,
    true)."""

    temperature: float = 0.0
    """Standard deviation of the noise that is added to a base model's predictions, in its normalised space
    (``lcm_temperature``, 1). Other models have none."""

    seed: int = 0
    """Of the noise; every prompt has a generator of its own."""

    batch_size: int = 8
    """How many documents are continued at once. Finished ones make room for waiting ones."""

    cuda_graphs: bool | None = None
    """Whether the denoiser's passes are recorded as CUDA graphs, so that a pass is launched as one; ``None``: on a GPU. A
    base model, and a denoiser with rotary positions, run as they are."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        for name, least in (("max_sentences", 1), ("min_sentences", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if not value >= least:
                raise ConfigError(f"`{name}` must be at least {least}, but is {value}.")
        if self.min_sentences > self.max_sentences:
            raise ConfigError(
                f"`min_sentences` ({self.min_sentences}) is above `max_sentences` ({self.max_sentences})."
            )
        for name in ("end_threshold", "repetition_threshold"):
            value = getattr(self, name)
            if value is not None and not -1.0 <= value <= 1.0:
                raise ConfigError(f"`{name}` is a cosine, between -1 and 1, but is {value}.")
        if self.repetition_window is not None and self.repetition_window < 1:
            raise ConfigError(f"`repetition_window` must be at least 1, but is {self.repetition_window}.")
        if not (self.temperature >= 0.0 and math.isfinite(self.temperature)):
            raise ConfigError(f"`temperature` must be 0 or above, but is {self.temperature}.")
