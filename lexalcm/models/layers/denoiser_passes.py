"""A denoiser's layers as generation runs them: at one position a document, with one timestep for all of them.

Everything that depends on the weights and the timestep alone is computed once: the modulations, the product of value and
output projection of own-position attention (the softmax of one score is 1), and what cross-attention gives a position
that sees the zero vector alone.

Shapes: B documents, K draws, S timesteps, M model_dim, H heads, E head dim, T keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Module

from lexalcm.models.layers.attention import OwnPositionAttention, PastCrossAttention, RotaryTable, attend
from lexalcm.models.layers.modulation import Modulation, TimestepConditioning
from lexalcm.models.layers.multiply_add import multiply_add
from lexalcm.models.layers.packed_linear import fixed_linear, with_packed_linears

Past = tuple[Tensor, Tensor]
"""Keys and values ``[B, T, H, E]`` of a layer's cross-attention."""


@dataclass(frozen=True)
class LayerParts:
    """The modules of a denoiser's layer, whatever their names in a family's checkpoints."""

    own_norm: Module
    own: OwnPositionAttention
    own_after: Module | None
    cross_norm: Module
    cross: PastCrossAttention
    ffn_norm: Module
    ffn: Module


class ModulatedLayer(Protocol):
    """A denoiser's layer of any family."""

    @property
    def parts(self) -> LayerParts: ...

    def modulations(self, conditioning: TimestepConditioning) -> list[Modulation]: ...


class DenoiserPasses:
    """The tables, and a pass that reads them; good for as long as the weights stay as they are."""

    def __init__(
        self,
        layers: Sequence[ModulatedLayer],
        embed: Callable[[Tensor], Tensor],
        trained_timesteps: Callable[[torch.device], Tensor],
        *,
        entrance: Module,
        exit: Module,
    ) -> None:
        """
        :param embed: Timesteps, int64 ``[S]``, to their embeddings ``[S, M]``.
        :param trained_timesteps: All of them, on a device.
        :param entrance: What noisy concepts go through before the layers.
        :param exit: What their output goes through at last.
        """
        self._doors = entrance, exit
        self._layers = layers
        self._embed = embed
        self._trained_timesteps = trained_timesteps
        self._modulations: dict[int, list[list[Modulation]]] = {}

    @cached_property
    def entrance(self) -> Any:
        """A copy for few rows; as ``exit``."""
        return with_packed_linears(self._doors[0])

    @cached_property
    def exit(self) -> Any:
        return with_packed_linears(self._doors[1])

    @cached_property
    def _folded(self) -> list[_FoldedLayer]:
        return [_FoldedLayer(layer.parts) for layer in self._layers]

    def prepare(self, timesteps: Sequence[int], device: torch.device) -> None:
        """Computes the modulations of timesteps that are not there yet, all at once."""
        new = sorted(set(timesteps) - set(self._modulations))
        if not new:
            return
        conditioning = TimestepConditioning(
            torch.tensor(new, device=device), self._embed, self._trained_timesteps(device)
        )
        by_layer = [layer.modulations(conditioning) for layer in self._layers]
        for row, timestep in enumerate(new):
            self._modulations[timestep] = [[_row(m, row) for m in modulations] for modulations in by_layer]

    def modulations(self, timestep: int, device: torch.device) -> list[list[Modulation]]:
        """Those of every layer, ``[M]`` each."""
        self.prepare([timestep], device)
        return self._modulations[timestep]

    def run(
        self,
        x: Tensor,
        timestep: int,
        pasts: Sequence[Past],
        *,
        mask: Tensor | None = None,
        dropped: bool | Tensor = False,
        rotary: RotaryTable | None = None,
    ) -> Tensor:
        """
        :param x: ``[B, 1, M]`` or ``[K, B, 1, M]``.
        :param mask: bool ``[B, 1, 1, T]``, True at real keys; ``None`` when all are.
        :param dropped: True, or True where (``[B, 1]``): only the zero vector is seen.
        :param rotary: Of the queries' positions.
        """
        return self._one(x, self.modulations(timestep, x.device), pasts, mask, dropped, rotary)

    def _one(
        self,
        x: Tensor,
        made: list[list[Modulation]],
        pasts: Sequence[Past],
        mask: Tensor | None,
        dropped: bool | Tensor,
        rotary: RotaryTable | None,
    ) -> Tensor:
        for layer, modulations, past in zip(self._folded, made, pasts):
            x = layer.own(x, modulations[0])
            x = layer.add_cross(x, modulations[1], past, mask, dropped, rotary)
            x = layer.feed_forward(x, modulations[2])
        return x

    def run_both(
        self,
        x: Tensor,
        timestep: int,
        pasts: Sequence[Past],
        *,
        mask: Tensor | None = None,
        rotary: RotaryTable | None = None,
    ) -> Tensor:
        """:meth:`run` with the context, and with the zero vector alone: every weight is read once for the two.

        :param x: ``[B, 1, M]``.  :returns: ``[2, B, 1, M]``, the one that sees the context first.
        """
        return self._both(x, self.modulations(timestep, x.device), pasts, mask, rotary)

    def _both(
        self,
        x: Tensor,
        made: list[list[Modulation]],
        pasts: Sequence[Past],
        mask: Tensor | None,
        rotary: RotaryTable | None,
    ) -> Tensor:
        for layer, modulations, past in zip(self._folded, made, pasts):
            # Until the first cross-attention both are the same.
            x = layer.own(x, modulations[0])
            seen = layer.cross(x if x.dim() == 3 else x[0], modulations[1], past, mask, rotary)
            x = multiply_add(x, modulations[1].gate, torch.stack([seen, layer.alone.expand_as(seen)]))
            x = layer.feed_forward(x, modulations[2])
        return x


class _FoldedLayer:
    def __init__(self, parts: LayerParts) -> None:
        self.parts = parts
        self.own_projection = fixed_linear(*parts.own.folded())
        self.alone = parts.cross.seen_alone()
        self.cross_attention = with_packed_linears(parts.cross)
        self.ffn = with_packed_linears(parts.ffn)

    def own(self, x: Tensor, modulation: Modulation) -> Tensor:
        h = self.parts.own_norm(x, modulation.scale, modulation.shift)
        h = self.own_projection(h)
        return multiply_add(x, modulation.gate, h if self.parts.own_after is None else self.parts.own_after(h))

    def cross(
        self, x: Tensor, modulation: Modulation, past: Past, mask: Tensor | None, rotary: RotaryTable | None
    ) -> Tensor:
        cross = self.cross_attention
        q = cross.queries(self.parts.cross_norm(x, modulation.scale, modulation.shift), rotary)
        return cross.merge(attend(q, *past, mask=mask))

    def add_cross(
        self,
        x: Tensor,
        modulation: Modulation,
        past: Past,
        mask: Tensor | None,
        dropped: bool | Tensor,
        rotary: RotaryTable | None,
    ) -> Tensor:
        if dropped is True:
            return multiply_add(x, modulation.gate, self.alone.expand_as(x))
        seen = self.cross(x, modulation, past, mask, rotary)
        if isinstance(dropped, Tensor):
            seen = torch.where(dropped.unsqueeze(-1), self.alone, seen)
        return multiply_add(x, modulation.gate, seen)

    def feed_forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        h = self.ffn(self.parts.ffn_norm(x, modulation.scale, modulation.shift))
        return multiply_add(x, modulation.gate, h)


def _row(modulation: Modulation, row: int) -> Modulation:
    return Modulation(scale=modulation.scale[row], shift=modulation.shift[row], gate=modulation.gate[row])
