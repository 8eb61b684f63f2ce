"""AdaLN modulation, computed once for each distinct timestep and gathered.

Shapes: S rows of the noise schedule, M model_dim, ``*P`` positions (``N``, ``B, T`` or ``K, N``).

A modulator depends on the timestep alone, of which a schedule has about a hundred, while a batch has tens of thousands
of positions: evaluating it for every position would be 22% of Pre1's FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear

from lexalcm.models.layers.precision import at_least_float32


@dataclass(frozen=True)
class Modulation:
    """``f`` sees ``scale * x + shift``, and its output is multiplied by ``gate``; each broadcasts to ``[*P, M]``."""

    scale: Tensor
    """1 + the modulator's own scale."""

    shift: Tensor

    gate: Tensor


class TimestepConditioning:
    """The timestep embeddings of one batch: either a table of timesteps and an index into it, or as given."""

    def __init__(self, timesteps: Tensor, embed: Callable[[Tensor], Tensor], all_timesteps: Tensor) -> None:
        """
        :param timesteps: int64 ``[*P]``, or ``[]`` for one timestep at all positions.
        :param embed: Timesteps to embeddings ``[..., M]``.
        :param all_timesteps: int64 ``[S]``, ascending by one: what ``timesteps`` may hold.
        """
        self._index = None
        if timesteps.dim() > 0 and timesteps.device.type == "cpu":
            timesteps, self._index = timesteps.unique(return_inverse=True)
        elif timesteps.numel() > all_timesteps.numel():
            # On an accelerator, finding the distinct ones would wait for it.
            self._index = timesteps - all_timesteps[0]
            timesteps = all_timesteps
        self._activated = F.silu(embed(timesteps))

    def modulation(self, modulator: Linear) -> Modulation:
        """:param modulator: Linear ``M -> 3 M``, its rows in the order scale, shift, gate."""
        scale, shift, gate = modulator(self._activated).chunk(3, dim=-1)
        scale = at_least_float32(scale) + 1.0
        if self._index is not None:
            scale, shift, gate = (_gather(table, self._index) for table in (scale, shift, gate))
        return Modulation(scale=scale, shift=shift, gate=gate)


def _gather(table: Tensor, index: Tensor) -> Tensor:
    """Rows ``[*P, M]`` of ``table`` ``[S, M]``, with the gradient that is fast there: one row at a time is what
    ``embedding`` does on CPU, and adding in any order what ``index_select`` does on an accelerator."""
    if table.device.type == "cpu":
        return table.index_select(0, index.flatten()).unflatten(0, index.shape)
    return F.embedding(index, table)
