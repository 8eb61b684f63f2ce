"""Whole tensors from the files of one fairseq2 checkpoint, however many ranks wrote it.

``step_N/model/pp_00/tp_00/sdp_RR.pt`` holds rank RR's shard under FSDP, everything under DDP or in one process.
fairseq2's own loader joins *every* key along its first dimension, replicated buffers included; here a tensor is joined
only where the model's own shape says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexalcm.checkpoints.torch_file import read_torch_file
from lexalcm.errors import CheckpointError
from lexalcm.training.ema import ExponentialMovingAverage


def read_model_state(step_folder: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Reads a checkpoint's model.

    :param shapes: The names and full shapes of the model's state.
    :raises CheckpointError: A file is missing or damaged, or names or shapes do not fit the model.
    """
    return dict(iter_model_state(step_folder, shapes))


def iter_model_state(step_folder: Path, shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, Tensor]]:
    """:func:`read_model_state` for who copies one tensor after the other: joined ones are not in the files.

    What is wrong is raised at once, before the first is taken.
    """
    shards = [read_torch_file(file, mmap=True) for file in _shard_files(step_folder / "model")]
    _check(shards, shapes, step_folder)
    return _join(shards, shapes)


def read_averaged_state(step_folder: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor] | None:
    """Reads a checkpoint's model with its averaged weights, ``None`` if the run keeps none."""
    files = _shard_files(step_folder / "optimizer")
    averages = [read_torch_file(file, mmap=True).get(ExponentialMovingAverage.STATE_KEY) for file in files]
    if averages[0] is None:
        return None
    state = read_model_state(step_folder, shapes)
    shards = [_averages_of(found, file) for found, file in zip(averages, files)]
    averaged = {name: shapes[name] for name in shards[0] if name in shapes}
    _check(shards, averaged, step_folder)
    state.update(_join(shards, averaged))
    return state


def _shard_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("pp_00/tp_00/sdp_*.pt"))
    if not files:
        raise CheckpointError(
            f"{folder} holds no checkpoint: pp_00/tp_00/sdp_00.pt is missing. Was its writing cut short?"
        )
    return files


def _averages_of(found: object, file: Path) -> dict[str, Tensor]:
    averages = found.get("averages") if isinstance(found, Mapping) else None
    if not isinstance(averages, Mapping):
        raise CheckpointError(f"{file}: what it holds of averaged weights is not what a run writes.")
    return dict(averages)


def _check(shards: Sequence[Mapping[str, Any]], shapes: Mapping[str, torch.Size], step_folder: Path) -> None:
    missing, unexpected = sorted(set(shapes) - set(shards[0])), sorted(set(shards[0]) - set(shapes))
    if missing or unexpected:
        raise CheckpointError(
            f"{step_folder} does not fit the model's configuration.\nmissing: {', '.join(missing) or 'none'}\n"
            f"unexpected: {', '.join(unexpected) or 'none'}"
        )
    for name, shape in shapes.items():
        found = [shard.get(name) for shard in shards]
        if not all(isinstance(value, Tensor) for value in found):
            raise CheckpointError(f"{step_folder}: `{name}` is not a tensor in every rank's part.")
        parts = [value.shape for value in found]
        whole = parts[0]
        if whole and whole != shape:
            whole = torch.Size([sum(part[0] for part in parts), *whole[1:]])
        if whole != shape:
            raise CheckpointError(
                f"{step_folder}: `{name}` has shape {tuple(whole)}, but the model's configuration says {tuple(shape)}."
            )


def _join(shards: list[dict[str, Tensor]], shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, Tensor]]:
    for name, shape in shapes.items():
        parts = [shard[name] for shard in shards]
        yield name, parts[0] if parts[0].shape == shape else torch.cat(parts)
