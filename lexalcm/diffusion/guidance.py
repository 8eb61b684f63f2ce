"""Classifier-free guidance (Ho and Salimans 2022) with rescaled spread (Lin et al. 2023, section 3.4).

Shapes: ``...`` positions, C dimensions of a concept.
"""

from __future__ import annotations

from torch import Tensor


def guide(
    conditional: Tensor, unconditional: Tensor, noisy: Tensor, alpha_cumprod: Tensor, *, scale: float, rescale: float
) -> Tensor:
    """Moves the conditional prediction away from the unconditional one.

    Guidance and rescaling act on the noise estimates: ``e = e_u + scale (e_c - e_u)``, then times
    ``rescale std(e_c) / std(e) + 1 - rescale`` with the unbiased spread over channels.

    :param conditional: Clean prediction ``[..., C]`` that sees the context.
    :param unconditional: The one that does not.
    :param noisy: What both were made of, ``[..., C]``.
    :param alpha_cumprod: ``[...]`` or a scalar, above 0: at pure noise both estimates are the noise itself.
    :returns: The guided clean prediction, as precise as its arguments.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if rescale == 0.0:
        return guided
    # The noise estimates are (noisy - signal clean) / sigma. Their common sigma cancels, so that nothing is divided by
    # what is next to 0 on a schedule's cleanest rows.
    signal = alpha_cumprod.unsqueeze(-1).sqrt()
    e_c, e = noisy - signal * conditional, noisy - signal * guided
    factor = rescale * e_c.std(dim=-1, keepdim=True) / e.std(dim=-1, keepdim=True) + (1.0 - rescale)
    return (noisy - factor * e) / signal
