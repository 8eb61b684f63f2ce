"""The trainer as a task: with an end that signals can bring about, and with what has to happen after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from signal import SIGUSR1
from typing import TYPE_CHECKING, final

from fairseq2.checkpoint import CheckpointManager
from fairseq2.error import OperationalError
from fairseq2.task import Task, TaskStopException
from typing_extensions import override

from lexalcm.errors import RunError
from lexalcm.recipes.disk_space import tell_of_full_disk
from lexalcm.recipes.host import end_after_this_step
from lexalcm.recipes.stopping import EXIT_CODES, StopAtStep, StoppedBySignal, StopSignals

if TYPE_CHECKING:  # importing fairseq2's trainer first is a circle among its own modules
    from fairseq2.trainer import Trainer


@final
class LcmTrainTask(Task):
    """Runs the trainer to its end, then ``on_end``, or up to the step in which a signal comes."""

    def __init__(
        self,
        trainer: Trainer,
        manager: CheckpointManager,
        signals: StopSignals,
        stop: StopAtStep,
        *,
        checkpoints: Path,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._trainer = trainer
        self._manager = manager
        self._signals = signals
        self._stop = stop
        self._checkpoints = checkpoints
        self._on_end = on_end
        stop.on_stop = lambda: end_after_this_step(trainer)

    @override
    def run(self) -> None:
        """
        :raises StoppedBySignal: The run ended early, with a checkpoint.
        :raises RunError: A checkpoint could not be written.
        """
        try:
            with self._signals:
                self._trainer.run()
        except TaskStopException:
            raise StoppedBySignal(self._stop.exit_code, self.step_nr) from None
        except RunError:
            # Raised on all ranks in the same step: what is being saved can still be saved.
            self._manager.maybe_complete_save_operation(blocking=True)
            raise
        except (OperationalError, OSError) as ex:
            tell_of_full_disk(ex, self._checkpoints, step=self.step_nr)
            raise
        if self._on_end is not None:
            self._on_end()

    @override
    def request_stop(self) -> None:
        self._signals.exit_code = EXIT_CODES[SIGUSR1]  # fairseq2 asks when that signal comes

    @override
    def close(self) -> None:
        self._trainer.close()

    @property
    @override
    def step_nr(self) -> int:
        return self._trainer.step_nr
