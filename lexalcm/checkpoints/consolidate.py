"""Whole tensors from the files of one fairseq2 checkpoint, however many ranks wrote it.

``step_N/model/pp_00/tp_00/sdp_RR.pt`` holds rank RR's shard under FSDP, everything under DDP or in one process.
fairseq2's own loader joins *every* key along its first dimension, replicated buffers included; here a tensor is joined
only where the model's own shape says so.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lexalcm.errors import CheckpointError
from lexalcm.training.ema import ExponentialMovingAverage


def read_model_state(step_folder: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Reads a checkpoint's model.

    :param shapes: The names and full shapes of the model's state.
    :raises CheckpointError: A file is missing or damaged, or names or shapes do not fit the model.
    """
    shards = [_load(file) for file in _shard_files(step_folder / "model")]
    return _join(shards, shapes, step_folder)


def read_averaged_state(step_folder: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor] | None:
    """Reads a checkpoint's model with its averaged weights, ``None`` if the run keeps none."""
    files = _shard_files(step_folder / "optimizer")
    averages = [_load(file).get(ExponentialMovingAverage.STATE_KEY) for file in files]
    if averages[0] is None:
        return None
    state = read_model_state(step_folder, shapes)
    names = averages[0]["averages"].keys()
    state.update(_join([a["averages"] for a in averages], {name: shapes[name] for name in names}, step_folder))
    return state


def _shard_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("pp_00/tp_00/sdp_*.pt"))
    if not files:
        raise CheckpointError(
            f"{folder} holds no checkpoint: pp_00/tp_00/sdp_00.pt is missing. Was its writing cut short?"
        )
    return files


def _load(file: Path) -> dict:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as ex:
        raise CheckpointError(
            f"{file} ({file.stat().st_size:,} bytes) is not a checkpoint that can be read safely: "
            f"{str(ex).splitlines()[0]}"
        ) from ex


def _join(shards: list[dict[str, Tensor]], shapes: Mapping[str, torch.Size], step_folder: Path) -> dict[str, Tensor]:
    missing, unexpected = sorted(set(shapes) - set(shards[0])), sorted(set(shards[0]) - set(shapes))
    if missing or unexpected:
        raise CheckpointError(
            f"{step_folder} does not fit the model's configuration.\nmissing: {', '.join(missing) or 'none'}\n"
            f"unexpected: {', '.join(unexpected) or 'none'}"
        )
    joined = {}
    for name, shape in shapes.items():
        parts = [shard[name] for shard in shards]
        whole = parts[0] if parts[0].shape == shape else torch.cat(parts)
        if whole.shape != shape:
            raise CheckpointError(
                f"{step_folder}: `{name}` has shape {tuple(whole.shape)}, but the model's configuration says {tuple(shape)}."
            )
        joined[name] = whole
    return joined
