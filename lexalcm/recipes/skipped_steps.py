"""What a run says and does when a step is not taken because its loss or gradient is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch.distributed as dist
from fairseq2.gang import Gang
from fairseq2.logging import log

from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.errors import RunError
from lexalcm.training.train_unit import LcmTrainUnit

_MOST_NAMED: Final = 8


@final
class SkippedSteps:
    """Names the documents of such a step, and ends the run when there are too many in a row."""

    def __init__(self, unit: LcmTrainUnit, gang: Gang, *, max_in_a_row: int, checkpoints: Path) -> None:
        self._unit = unit
        self._gang = gang
        self._max_in_a_row = max_in_a_row
        self._checkpoints = checkpoints

    def __call__(self, in_a_row: int) -> None:
        """To be called on all ranks, with how many steps in a row were not taken, this one included.

        :raises RunError: They are too many.
        """
        self._unit.count_skipped_step()
        suspects, others = self._of_all_ranks()
        what = "loss" if suspects.count else "gradient"
        documents = f"Documents {suspects if suspects.count else others}"
        step = self._unit.step_nr
        if in_a_row < self._max_in_a_row:
            log.warning("Step {:,} was not taken: its {} is not finite. {}.", step, what, documents)
            return
        saved = saved_steps(self._checkpoints)
        last = f"step {saved[-1]:,} in {self._checkpoints}" if saved else "none: the run has saved none yet"
        raise RunError(
            f"The {what} of step {step:,} is not finite, as it was in {in_a_row} step(s) in a row, none of which was "
            f"taken (`trainer.max_nonfinite_steps`). {documents}.\n"
            f"The last good checkpoint: {last}.\n"
            f"Look at these documents (`fairseq2 lcm verify`), or lower `optimizer.config.lr` and `trainer.max_grad_norm`."
        )

    def _of_all_ranks(self) -> tuple[_Named, _Named]:
        suspects, others = (_Named(names[:_MOST_NAMED], len(names)) for names in self._unit.documents_of_step())
        if self._gang.size == 1:
            return suspects, others
        gathered: list[tuple[_Named, _Named] | None] = [None] * self._gang.size
        dist.all_gather_object(gathered, (suspects, others), group=self._gang.as_process_group())
        return tuple(_joined(named) for named in zip(*(pair for pair in gathered if pair is not None)))  # type: ignore


@dataclass(frozen=True)
class _Named:
    """Some of many documents."""

    names: list[str]

    count: int

    def __str__(self) -> str:
        more = f" and {self.count - len(self.names):,} more" if self.count > len(self.names) else ""
        return f"{', '.join(self.names)}{more}" or "not known"


def _joined(some: Sequence[_Named]) -> _Named:
    names = [name for named in some for name in named.names]
    return _Named(names[:_MOST_NAMED], sum(named.count for named in some))
