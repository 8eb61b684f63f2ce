"""Going on with another number of ranks than the one that wrote the last checkpoint.

fairseq2 gives each rank the states that a rank of the same number saved: it would train on with one rank's data, or
hang. Here every rank reads those of all, and makes its own of them; nothing on the disk is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from fairseq2.checkpoint import CheckpointManager
from fairseq2.device import CPU
from fairseq2.gang import Gangs
from fairseq2.io import TensorFileLoadOptions
from fairseq2.logging import log
from fairseq2.utils.rng import RngBag
from torch import Tensor

from lexalcm.data.saved_position import reshard
from lexalcm.errors import ConfigError
from lexalcm.recipes.checkpoint_files import RestrictedLoader

_SEED_OF_A_STEP: Final = 1_000_003


def take_over(
    manager: CheckpointManager, loader: RestrictedLoader, checkpoints: Path, gangs: Gangs, *, seed: int
) -> None:
    """Prepares the states of this rank, if the last checkpoint is of another number of ranks. To be called on all.

    Data go on where all old ranks together stood: no document of the epoch is lost or repeated. Random numbers of a
    rank that is new begin from ``seed``, the step and its number; totals in the metrics go on.

    :raises ConfigError: The checkpoint's weights lie in parts, one a rank; names both numbers.
    :raises DataError: The checkpoint's parts do not belong together.
    """
    step = manager.maybe_get_last_step_number(exclude_model_only=True)
    if step is None:
        return
    folder = checkpoints / f"step_{step}"
    num_before = len(list((folder / "data_reader").glob("dp_*.pt")))
    shards = len(list((folder / "model").rglob("sdp_*.pt")))
    if num_before == gangs.dp.size and shards == gangs.sdp.size:
        return
    if shards != gangs.sdp.size:
        raise ConfigError(
            f"The checkpoint of step {step} in {checkpoints} was written by {num_before} data-parallel rank(s), its weights in "
            f"{shards} part(s) (fsdp), but this run has {gangs.dp.size} rank(s) and needs {gangs.sdp.size} part(s).\n"
            f"Resume with {num_before}; or export it (`fairseq2 lcm export`) and train into another folder with "
            f"`model.name` set to that. Runs with `trainer.data_parallelism=ddp` can change their number."
        )
    options = TensorFileLoadOptions(map_location=CPU, restrict=True)
    readers = [loader.load(folder / "data_reader" / f"dp_{rank:02d}.pt", options) for rank in range(num_before)]
    trainers = [loader.load(folder / "trainer" / f"rank_{rank:02d}.pt", options) for rank in range(num_before)]
    rank = gangs.root.rank
    loader.put(folder / "data_reader" / f"dp_{gangs.dp.rank:02d}.pt", reshard(readers, gangs.dp.size)[gangs.dp.rank])
    fresh = RngBag.from_device_defaults(CPU, gangs.device)
    with fresh.temporary_manual_seed((seed + rank + _SEED_OF_A_STEP * step) % 2**32):
        random_state = trainers[rank]["_rng_bag"] if rank < num_before else fresh.state_dict()
    metrics = _totals_on_first_rank([trainer["_metric_bag"] for trainer in trainers], rank)
    state = {**trainers[0], "_rng_bag": random_state, "_metric_bag": metrics}
    loader.put(folder / "trainer" / f"rank_{rank:02d}.pt", state)
    log.warning(
        "The run goes on with {} rank(s) instead of {}: a step is now made of as many batches, at the same learning rate.",
        gangs.dp.size,
        num_before,
    )


def _totals_on_first_rank(bags: Sequence[Any], rank: int) -> dict[str, dict[str, Tensor]]:
    """What each rank has counted is summed up when it is shown; the sum so far goes to one of them."""
    return {
        name: {
            key: torch.stack([bag[name][key] for bag in bags]).sum(dim=0) if rank == 0 else torch.zeros_like(value)
            for key, value in state.items()
        }
        for name, state in bags[0].items()
    }
