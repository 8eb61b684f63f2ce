"""Continues a document concept by concept, with nothing of the past computed twice.

Shapes: T concepts of the prompt, C dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lexalcm.diffusion.samplers import Sampler
from lexalcm.generation.draw import draw_concepts
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel


@torch.inference_mode()
def continue_document(
    model: TwoTowerModel,
    prompt: Tensor,
    *,
    num_concepts: int,
    sampler: Sampler,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws the next concepts after a prompt.

    :param prompt: Raw concepts ``[T, C]``, T at least 1, on the model's device.
    :param generator: Of the noise, on the CPU; the same seed gives the same concepts.
    :returns: Raw concepts ``[num_concepts, C]``, float32.
    """
    if prompt.size(0) < 1:
        raise ValueError("prompt must have at least one concept.")
    state = model.new_state()
    new = model.normalize(prompt).unsqueeze(0)
    made = []
    for _ in range(num_concepts):
        layout = DocumentLayout([new.size(1)], packed=False)
        layout.to(prompt.device)
        cache = model.denoise_cache(model.encode(new, layout, state), layout, next_only=True)
        latents = torch.randn(1, 1, prompt.size(1), generator=generator).to(prompt.device)
        new = draw_concepts(model, cache, latents, sampler)
        made.append(model.denormalize(new)[0, 0])
    return torch.stack(made)
