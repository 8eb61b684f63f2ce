"""Noise that depends on a prompt and a seed alone, not on what else is in the batch.

Shapes: C dimensions of a concept.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

import torch
from torch import Tensor

_SEED_BITS = 63


class NoiseSource(Protocol):
    """Where the N(0, 1) noise of a generation comes from; a test gives recorded noise."""

    def enter(self, prompt: int, key: str) -> None:
        """A prompt enters the batch.  :param prompt: Its number.  :param key: What its noise depends on."""

    def latents(self, prompt: int) -> Tensor:
        """What the prompt's next concept starts from, ``[C]``."""

    def variance(self, prompt: int) -> Tensor:
        """What the next step of a sampler with ``eta`` above 0 adds, ``[C]``."""

    def leave(self, prompt: int) -> None:
        """Nothing more will be asked for the prompt."""


class SeededNoise:
    """One generator a prompt, seeded by the seed and the prompt's key. They run on the CPU, so that every device sees the
    same noise."""

    def __init__(self, seed: int, concept_dim: int) -> None:
        self._seed = seed
        self._concept_dim = concept_dim
        self._generators: dict[int, torch.Generator] = {}

    def enter(self, prompt: int, key: str) -> None:
        # Hashed, not added: seed 1 must not give one prompt what seed 0 gives another.
        digest = blake2b(f"{self._seed}:{key}".encode()).digest()
        self._generators[prompt] = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS))

    def latents(self, prompt: int) -> Tensor:
        return torch.randn(self._concept_dim, generator=self._generators[prompt])

    def variance(self, prompt: int) -> Tensor:
        return self.latents(prompt)

    def leave(self, prompt: int) -> None:
        del self._generators[prompt]
