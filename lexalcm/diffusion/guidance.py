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
    :param alpha_cumprod: ``[...]`` or a scalar; 0 gives the limit.
    :returns: The guided clean prediction, as precise as its arguments.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if rescale == 0.0:
        return guided
    # The noise estimates are (noisy - signal clean) / sigma. Their common sigma cancels, so that nothing is divided by
    # what is next to 0 on a schedule's cleanest rows.
    signal = alpha_cumprod.unsqueeze(-1).sqrt()
    change = conditional - guided
    e_c, e = noisy - signal * conditional, noisy - signal * guided
    # The clean concept of `factor * e` is guided + (1 - factor) / signal * e. Near pure noise factor is next to 1 and
    # signal next to 0: their quotient comes from the difference of the variances, from which signal cancels.
    spread_c, spread = e_c.std(dim=-1, keepdim=True), e.std(dim=-1, keepdim=True)
    difference = 2.0 * _covariance(e_c, change) + signal * change.var(dim=-1, keepdim=True)
    return guided + rescale * difference / (spread * (spread + spread_c)) * e


def _covariance(x: Tensor, y: Tensor) -> Tensor:
    centered = (x - x.mean(dim=-1, keepdim=True)) * (y - y.mean(dim=-1, keepdim=True))
    return centered.sum(dim=-1, keepdim=True) / (x.size(-1) - 1)
