"""What a published LexaLCM-Pre1 checkpoint says to a prompt with its own forward: one pass, no sampler, no loop.

Shapes: T concepts of a prompt, C dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor

from lexalcm.generation.generator import Ended, NewConcept, Prompt
from lexalcm.generation.noise import SeededNoise
from lexalcm.models.pre1.original import OriginalPre1

ONE_PASS = "one_pass"
"""The reason why there are no more concepts."""


class OriginalPasses:
    """Stands in for a generator of concepts. Concept i of what it yields is the guess at what follows concept i of the
    prompt; revisions that returned the last position alone yield that one."""

    def __init__(
        self,
        model: OriginalPre1,
        *,
        seed: int = 0,
        start: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        :param model: In float32.
        :param start: Special concept ``[C]`` before every prompt; a guess at what follows it comes first then.
        :param dtype: Of autocast, if it is not float32; the published script had bfloat16.
        """
        self.model = model
        self._seed = seed
        self._start = start
        self._dtype = dtype

    @property
    def timestep(self) -> int:
        """Where the one pass stands."""
        return self.model.config.num_inference_steps - 1

    def describe(self) -> str:
        """What is done, in a line."""
        return (
            f"the published code's own forward: one pass of the denoiser at "
            f"t = {self.timestep} a prompt; no sampler, no loop: these are guesses at each next concept of the prompt"
        )

    @torch.inference_mode()
    def generate(self, prompts: Iterable[Prompt]) -> Iterator[NewConcept | Ended]:
        """Prompts ``[T, C]`` one by one, in order."""
        first = next(chain(self.model.parameters(), self.model.buffers()))
        source = SeededNoise(self._seed, self.model.config.model_dim)
        for number, prompt in enumerate(prompts):
            concepts = prompt.concepts if self._start is None else torch.cat([self._start[None], prompt.concepts])
            source.enter(number, prompt.key)
            noise = torch.stack([source.latents(number) for _ in concepts])
            source.leave(number)
            with torch.autocast(first.device.type, self._dtype, enabled=self._dtype != torch.float32):
                output = self.model(concepts[None].to(first), noise=noise[None].to(first))
            guesses = output.returned[0].float().cpu()
            for i, concept in enumerate(guesses):
                yield NewConcept(number, i, concept)
            yield Ended(number, ONE_PASS, len(guesses), None, f"one pass at t = {self.timestep}")
