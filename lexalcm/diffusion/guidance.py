"""Classifier-free guidance (Ho and Salimans 2022) with rescaled spread (Lin et al. 2023, section 3.4).

Shapes: ``...`` positions, C dimensions of a concept.
"""

from __future__ import annotations

from torch import Tensor

from lexalcm.diffusion.parametrization import clean_to_noise, noise_to_clean


def guide(
    conditional: Tensor, unconditional: Tensor, noisy: Tensor, alpha_cumprod: Tensor, *, scale: float, rescale: float
) -> Tensor:
    """Moves the conditional prediction away from the unconditional one.

    Guidance and rescaling act on the noise estimates: ``e = e_u + scale (e_c - e_u)``, then times
    ``rescale std(e_c) / std(e) + 1 - rescale`` with the spread over channels.

    :param conditional: Clean prediction ``[..., C]`` that sees the context.
    :param unconditional: The one that does not.
    :param alpha_cumprod: ``[...]`` or a scalar, above 0: at pure noise both estimates are the noise itself.
    :returns: The guided clean prediction.
    """
    e_c = clean_to_noise(conditional, noisy, alpha_cumprod)
    e_u = clean_to_noise(unconditional, noisy, alpha_cumprod)
    guided = e_u + scale * (e_c - e_u)
    if rescale > 0.0:
        ratio = e_c.std(dim=-1, keepdim=True) / guided.std(dim=-1, keepdim=True)
        guided = guided * (rescale * ratio + (1.0 - rescale))
    return noise_to_clean(guided, noisy, alpha_cumprod)
