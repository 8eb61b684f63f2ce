"""The map between raw embeddings and the space a model works in.

Shapes: C the dimensions of a concept; ``...`` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from lexalcm.models.normalizer.statistics import NormalizerStatistics


class ConceptNormalizer(Module):
    """Shifts and scales each dimension of a concept, in float32 whatever the model around it runs in.

    A new normalizer is the identity. Its statistics are persistent buffers: they travel in the checkpoint of the model
    that holds it, and stay float32 under ``.half()``, ``.to(bfloat16)`` and ``.double()``.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, dim: int, *, with_fft: bool = False, with_clipping: bool = False) -> None:
        """
        :param dim: C.
        :param with_fft: Normalise the real Fourier transform of a concept; ``dim`` must be even.
        :param with_clipping: Clamp normalised values to the buffers ``clip_min`` and ``clip_max``. Both start at one,
            as in the reference, so that statistics must be loaded before use.
        """
        super().__init__()
        if with_fft and dim % 2:
            raise ValueError(f"`dim` must be even when `with_fft` is set, but is {dim} instead.")
        self.dim = dim
        self.with_fft = with_fft
        self.with_clipping = with_clipping
        self.register_buffer("center", torch.zeros(dim, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(dim, dtype=torch.float32))
        if with_clipping:
            self.register_buffer("clip_min", torch.ones(dim, dtype=torch.float32))
            self.register_buffer("clip_max", torch.ones(dim, dtype=torch.float32))

    def reset_parameters(self) -> None:
        """Makes the normalizer the identity again; fairseq2 calls this when it fills a model made on the meta
        device."""
        self.center.zero_()
        self.scale.fill_(1.0)
        if self.with_clipping:
            self.clip_min.fill_(1.0)
            self.clip_max.fill_(1.0)

    def set_statistics(
        self, *, center: Tensor, scale: Tensor, clip_min: Tensor | None = None, clip_max: Tensor | None = None
    ) -> None:
        """Takes over fitted statistics, all ``[C]``; the bounds exactly when this normalizer clips.

        :raises ValueError: Another shape, values that are not finite, a scale that is not positive, bounds that are
            missing, too many or in the wrong order.
        """
        found = NormalizerStatistics(center=center, scale=scale, clip_min=clip_min, clip_max=clip_max)
        if center.shape != (self.dim,):
            raise ValueError(f"`center` must have shape ({self.dim},), but has {tuple(center.shape)} instead.")
        if found.with_clipping != self.with_clipping:
            needs, has = ("needs", "none are given") if self.with_clipping else ("has no", "some are given")
            raise ValueError(f"This normalizer {needs} bounds `clip_min` and `clip_max`, but {has}.")
        if (fault := found.fault()) is not None:
            raise ValueError(f"{fault}.")
        with torch.no_grad():
            for name, value in found.tensors().items():
                getattr(self, name).copy_(value)

    @property
    def is_identity(self) -> bool:
        """Whether concepts pass as they are: no statistics were set."""
        return not self.with_fft and bool((self.center == 0).all() and (self.scale == 1).all())

    @property
    def statistics(self) -> NormalizerStatistics:
        """What :meth:`set_statistics` took over; the tensors are the buffers themselves."""
        clip_min, clip_max = (self.clip_min, self.clip_max) if self.with_clipping else (None, None)
        return NormalizerStatistics(
            center=self.center, scale=self.scale, clip_min=clip_min, clip_max=clip_max, with_fft=self.with_fft
        )

    def normalize(self, concepts: Tensor) -> Tensor:
        """Maps raw concepts ``[..., C]`` of any float type into the model's space, float32."""
        x = concepts.float()
        if self.with_fft:
            x = to_frequencies(x)
        x = (x - self.center) / self.scale
        return self._clip(x)

    def denormalize(self, concepts: Tensor) -> Tensor:
        """Maps concepts ``[..., C]`` of the model's space back to raw ones, float32; clips before it does."""
        x = self._clip(concepts.float()) * self.scale + self.center
        return from_frequencies(x) if self.with_fft else x

    def _clip(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.clip_min, self.clip_max) if self.with_clipping else x

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ConceptNormalizer:
        def moved(x: Tensor) -> Tensor:
            y = fn(x)
            # A cast is answered by a move alone: half-precision statistics would shift every concept of a corpus.
            return y if y.dtype == x.dtype else x.to(y.device)

        return super()._apply(moved, recurse)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, with_fft={self.with_fft}, with_clipping={self.with_clipping}"


def to_frequencies(x: Tensor) -> Tensor:
    """Unscaled real Fourier transform of the last axis as C reals: Re_0 .. Re_{C/2}, Im_1 .. Im_{C/2-1}.

    :param x: float32 or float64 ``[..., C]``, C even.
    """
    spectrum = torch.fft.rfft(x, dim=-1)
    # Im_0 and Im_{C/2} of a real signal are zero: leaving them out keeps C numbers.
    return torch.cat([spectrum.real, spectrum.imag[..., 1:-1]], dim=-1)


def from_frequencies(x: Tensor) -> Tensor:
    """The inverse of :func:`to_frequencies`."""
    half = x.shape[-1] // 2
    real, inner = x[..., : half + 1], x[..., half + 1 :]
    zero = torch.zeros_like(real[..., :1])
    imaginary = torch.cat([zero, inner, zero], dim=-1)
    return torch.fft.irfft(torch.complex(real, imaginary), n=x.shape[-1], dim=-1)
