"""A denoiser's passes as CUDA graphs.

At one position a document a pass is some two hundred small kernels, whose launches take longer than their work. A graph
launches them as one. It is recorded for fixed shapes and addresses, so that keys and values are copied into room of its
own, once a sentence, and the timestep's modulations, once a pass.

Shapes: B documents, M model_dim, H heads, T keys, E head dim, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lexalcm.models.layers.attention import RotaryTable
from lexalcm.models.layers.denoiser_passes import DenoiserPasses, Past
from lexalcm.models.layers.key_value_cache import with_room
from lexalcm.models.layers.modulation import Modulation

_WARM_UP = 2
"""Runs before a recording, in which libraries allocate what they keep."""

Replay = Callable[[], None]


@dataclass
class _Recording:
    """A pass with its own inputs and outputs."""

    x: Tensor
    """``[B, 1, M]``, B rounded up."""

    pasts: list[Past]

    mask: Tensor
    """bool ``[B, 1, 1, T]``."""

    modulations: Tensor
    """``[L, 3, 3, M]``: scale, shift and gate of each of a layer's three parts."""

    out: Tensor | None = None

    replay: Replay | None = None

    holds: Sequence[Past] | None = None
    """Whose keys and values are in ``pasts``."""


class GraphedPasses(DenoiserPasses):
    """The same results as those of :class:`DenoiserPasses`, up to the rounding of other kernels."""

    def __init__(self, passes: DenoiserPasses) -> None:
        entrance, exit = passes._doors
        super().__init__(passes._layers, passes._embed, passes._trained_timesteps, entrance=entrance, exit=exit)
        self._modulations = passes._modulations
        self._recordings: dict[tuple[object, ...], _Recording] = {}
        self._packed: dict[int, Tensor] = {}

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
        if rotary is not None or dropped is not False or x.dim() != 3:
            return super().run(x, timestep, pasts, mask=mask, dropped=dropped, rotary=rotary)
        return self._replayed(x, timestep, pasts, mask, both=False)

    def run_both(
        self,
        x: Tensor,
        timestep: int,
        pasts: Sequence[Past],
        *,
        mask: Tensor | None = None,
        rotary: RotaryTable | None = None,
    ) -> Tensor:
        if rotary is not None:
            return super().run_both(x, timestep, pasts, mask=mask, rotary=rotary)
        return self._replayed(x, timestep, pasts, mask, both=True)

    def _replayed(self, x: Tensor, timestep: int, pasts: Sequence[Past], mask: Tensor | None, *, both: bool) -> Tensor:
        count, width = x.size(0), pasts[0][0].size(1)
        rows, room = 1 << (count - 1).bit_length(), with_room(width)
        key = (rows, room, both, x.dtype, pasts[0][0].dtype)
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = _empty_recording(x, rows, room, pasts, len(self._layers))
        if recording.holds is not pasts:
            recording.holds = pasts
            for (k, v), (new_k, new_v) in zip(recording.pasts, pasts):
                k[:count, :width] = new_k
                v[:count, :width] = new_v
            recording.mask[:count] = False
            recording.mask[:count, :, :, :width] = True if mask is None else mask
        recording.x[:count] = x
        recording.modulations.copy_(self._packed_modulations(timestep, x.device))
        if recording.replay is None:
            recording.replay = self._record(recording, both)
        recording.replay()
        assert recording.out is not None
        # Its memory is written again by the next pass.
        return recording.out[..., :count, :, :].clone()

    def _record(self, recording: _Recording, both: bool) -> Replay:
        def run() -> None:
            made = _unpacked(recording.modulations)
            if both:
                recording.out = self._both(recording.x, made, recording.pasts, recording.mask, None)
            else:
                recording.out = self._one(recording.x, made, recording.pasts, recording.mask, False, None)

        return record(run, recording.x.device)

    def _packed_modulations(self, timestep: int, device: torch.device) -> Tensor:
        packed = self._packed.get(timestep)
        if packed is None:
            layers = self.modulations(timestep, device)
            rows = [
                torch.stack([torch.stack([m.scale, m.shift.float(), m.gate.float()]) for m in made]) for made in layers
            ]
            packed = self._packed[timestep] = torch.stack(rows)
        return packed


def record(run: Callable[[], None], device: torch.device) -> Replay:
    """Records what ``run`` launches; the result launches it again, reading and writing the same memory."""
    if device.type != "cuda":
        return run
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _empty_recording(x: Tensor, rows: int, room: int, pasts: Sequence[Past], num_layers: int) -> _Recording:
    _, _, heads, dim = pasts[0][0].shape
    # Rows that no document has see one key of zeros.
    mask = torch.zeros(rows, 1, 1, room, dtype=torch.bool, device=x.device)
    mask[..., 0] = True
    own = [tuple(k.new_zeros(rows, room, heads, dim) for _ in range(2)) for k, _ in pasts]
    return _Recording(
        x=x.new_zeros(rows, *x.shape[1:]),
        pasts=own,  # type: ignore[arg-type]
        mask=mask,
        modulations=torch.zeros(num_layers, 3, 3, x.size(-1), device=x.device),
    )


def _unpacked(packed: Tensor) -> list[list[Modulation]]:
    return [[Modulation(scale=part[0], shift=part[1], gate=part[2]) for part in layer] for layer in packed]
