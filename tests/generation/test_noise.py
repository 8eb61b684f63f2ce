"""Noise of a prompt: its own, and that of the seed."""

from __future__ import annotations

import torch
from torch import Tensor

from lexalcm.generation.noise import SeededNoise


def drawn(seed: int, key: str, *, number: int = 0) -> Tensor:
    noise = SeededNoise(seed, 4)
    noise.enter(number, key)
    return torch.stack([noise.latents(number), noise.variance(number)])


def test_noise_depends_on_seed_and_key_alone() -> None:
    assert torch.equal(drawn(0, "a"), drawn(0, "a", number=7))
    assert not torch.equal(drawn(0, "a"), drawn(1, "a"))
    assert not torch.equal(drawn(0, "a"), drawn(0, "b"))


def test_what_one_prompt_draws_is_not_drawn_by_another() -> None:
    noise = SeededNoise(0, 4)
    noise.enter(0, "a")
    noise.enter(1, "b")
    mixed = [noise.latents(0), noise.latents(1), noise.variance(0)]
    assert torch.equal(torch.stack([mixed[0], mixed[2]]), drawn(0, "a"))


def test_latents_are_standard_normal() -> None:
    noise = SeededNoise(3, 20_000)
    noise.enter(0, "x")
    latents = noise.latents(0)
    assert abs(latents.mean()) < 0.03 and abs(latents.std() - 1) < 0.02
