"""Training runs of several ranks beside one process that takes the very same steps.

Ranks are forked from one process, with the variables that torchrun sets: starting Python and torch for each of them would
take nearly all of a test's time. Two things differ from ``fairseq2 lcm train``. The noise of a batch depends on the batch
alone, not on the rank that draws it. And a run of one process may read what several ranks would read, and make their
micro-batches one step.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fairseq2.recipe  # noqa: F401 - fairseq2.evaluator, imported before it, would import itself half-way (0.8.1)
import torch
from fairseq2.datasets import DataReader
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Module
from typing_extensions import Self

from lexalcm.data.batch import ConceptBatch
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.reader import ConceptReader
from lexalcm.diffusion.objective import LossTerms, TrainingObjective
from lexalcm.models.interface import TwoTowerModel
from lexalcm.recipes import validation
from lexalcm.recipes.host import RecipeHost
from lexalcm.recipes.run import run_training
from lexalcm.recipes.train import LcmTrainRecipe
from lexalcm.training import train_unit
from lexalcm.training.train_unit import LcmTrainUnit, predict_drawn
from tests.end_to_end.torchrun_variables import torchrun_variables

SECONDS_A_RUN = 300
"""More than any run takes, and far less than one that hangs."""


@dataclass(frozen=True)
class Run:
    """One training run; it lies in the folder of its name."""

    name: str

    overrides: list[str] = field(default_factory=list)

    num_ranks: int = 1

    ranks_a_node: int | None = None
    """All by default."""

    num_readers: int = 0
    """Above 0: one process reads what so many ranks would."""

    recipe: str = "quickstart"


def run_all(folder: Path, runs: list[Run]) -> None:
    """Trains one run after the other, in a process of its own, below ``folder``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    words = [sys.executable, __file__, str(folder), json.dumps([asdict(run) for run in runs])]
    timeout = (len(runs) + 1) * SECONDS_A_RUN
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=timeout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def ended_with(folder: Path, rank: int = 0) -> dict[str, Any]:
    """``state``: parameters and buffers of a rank at its end, shards under FSDP; ``num_empty``: batches without weight."""
    return torch.load(folder / "ended" / f"rank_{rank}.pt", weights_only=True)


class AllRanks(DataReader[ConceptBatch]):
    """The readers of all ranks, one after the other; their micro-batches are one step of one process."""

    def __init__(self, readers: list[ConceptReader]) -> None:
        self._readers = readers

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[ConceptBatch]:
        batches = [batch for reader in self._readers for batch in next(reader)]
        if all(batch.ids is None for batch in batches):
            raise StopIteration
        targets = sum(batch.num_targets for batch in batches)
        for batch in batches:
            batch.num_step_targets, batch.num_step_batches = targets, len(batches)
        return batches

    def reset(self) -> None:
        for reader in self._readers:
            reader.reset()

    def state_dict(self) -> dict[str, object]:
        return {"readers": [reader.state_dict() for reader in self._readers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for reader, state in zip(self._readers, state_dict["readers"], strict=True):
            reader.load_state_dict(state)

    @property
    def num_accumulate(self) -> int:
        return sum(reader.num_accumulate for reader in self._readers)


def _read_as_all_ranks(num_readers: int) -> None:
    create_reader = ConceptParquetDataset.create_reader

    def create(self: ConceptParquetDataset, split: str | None, reading: Any, **more: Any) -> AllRanks:
        # Each believes that another one has data left, and so gives batches without weight when its own are over.
        more |= {"world_size": num_readers, "any_rank": lambda flag: True}
        return AllRanks([create_reader(self, split, reading, **more | {"rank": r}) for r in range(num_readers)])

    ConceptParquetDataset.create_reader = create  # type: ignore[method-assign, assignment]


def _noise_by_content() -> None:
    def predict_noised(
        dp_model: Module, model: TwoTowerModel, objective: TrainingObjective, batch: ConceptBatch
    ) -> tuple[Tensor, Tensor, LossTerms]:
        generator = torch.Generator().manual_seed(zlib.crc32(batch.concepts.numpy().tobytes()))
        draw = objective.draw(batch.layout, model.concept_dim, generator=generator)
        predicted, terms = predict_drawn(dp_model, model, objective, batch, draw)
        return predicted, draw.timesteps, terms

    train_unit.predict_noised = validation.predict_noised = predict_noised


def _train(folder: Path, run: Run, rank: int) -> None:
    """Trains as one rank, and leaves in ``ended`` what it ends with."""
    units: list[LcmTrainUnit] = []
    num_empty = 0
    create_unit, process_batch = LcmTrainUnit.__init__, LcmTrainUnit.process_batch

    def create_and_note(self: LcmTrainUnit, *args: Any, **more: Any) -> None:
        create_unit(self, *args, **more)
        units.append(self)

    def process_and_count(self: LcmTrainUnit, batch: ConceptBatch, *args: Any) -> Any:
        nonlocal num_empty
        num_empty += batch.ids is None
        return process_batch(self, batch, *args)

    LcmTrainUnit.__init__, LcmTrainUnit.process_batch = create_and_note, process_and_count  # type: ignore[method-assign]
    _noise_by_content()
    if run.num_readers:
        _read_as_all_ranks(run.num_readers)
    code = run_training(run.recipe, folder / run.name, overrides=run.overrides, no_rich=True)
    if units:
        state = units[0]._model.state_dict()
        local = {name: (x.to_local() if isinstance(x, DTensor) else x).clone() for name, x in state.items()}
        (folder / run.name / "ended").mkdir(exist_ok=True)
        torch.save({"state": local, "num_empty": num_empty}, folder / run.name / "ended" / f"rank_{rank}.pt")
    sys.exit(code)


def _be_rank(folder: Path, run: Run, rank: int, variables: dict[str, str]) -> None:
    with (folder / f"{run.name}.{rank}.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ |= variables
    _train(folder, run, rank)


def _main(folder: Path, runs: list[Run]) -> None:
    RecipeHost(LcmTrainRecipe(), no_rich=True)  # imports what every rank would import anew
    context = multiprocessing.get_context("fork")
    for run in runs:
        variables = torchrun_variables(run.num_ranks, ranks_a_node=run.ranks_a_node)
        ranks = [context.Process(target=_be_rank, args=(folder, run, r, told)) for r, told in enumerate(variables)]
        for process in ranks:
            process.start()
        end = time.monotonic() + SECONDS_A_RUN
        for process in ranks:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in ranks]
        for process in ranks:
            process.kill()
        if any(codes):
            logs = "\n".join((folder / f"{run.name}.{r}.log").read_text()[-1500:] for r in range(run.num_ranks))
            sys.exit(f"{run.name} ended with {codes}:\n{logs}")
        if None in codes:
            sys.exit(f"{run.name} hangs: ranks ended with {codes}")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), [Run(**run) for run in json.loads(sys.argv[2])])
