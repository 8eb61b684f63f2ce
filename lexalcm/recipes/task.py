"""The trainer as a task: with an end that signals can bring about, and with what has to happen after it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from fairseq2.error import OperationalError
from fairseq2.task import Task, TaskStopException
from typing_extensions import override

from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.errors import RunError
from lexalcm.recipes.host import end_after_this_step
from lexalcm.recipes.stopping import StopAtStep, StoppedBySignal, StopSignals

if TYPE_CHECKING:  # importing fairseq2's trainer first is a circle among its own modules
    from fairseq2.trainer import Trainer

_OF_THE_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@final
class LcmTrainTask(Task):
    """Runs the trainer to its end, then ``on_end``, or up to the step in which a signal comes."""

    def __init__(
        self,
        trainer: Trainer,
        signals: StopSignals,
        stop: StopAtStep,
        *,
        checkpoints: Path,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._trainer = trainer
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
        except (OperationalError, OSError) as ex:
            self._tell_of_the_disk(ex)
            raise
        if self._on_end is not None:
            self._on_end()

    def _tell_of_the_disk(self, error: BaseException) -> None:
        while error.__cause__ is not None:
            error = error.__cause__
        if not isinstance(error, OSError) or error.errno not in _OF_THE_DISK:
            return
        saved = saved_steps(self._checkpoints)
        last = f"step {saved[-1]:,}" if saved else "none: the run has saved none yet"
        raise RunError(
            f"{error.filename or self._checkpoints} cannot be written: {error.strerror} (after step {self.step_nr:,}).\n"
            f"The last good checkpoint in {self._checkpoints}: {last}.\n"
            f"Make room (or name another place, --checkpoint-dir), and run the same command again: it goes on from there."
        ) from error

    @override
    def request_stop(self) -> None:
        end_after_this_step(self._trainer)

    @override
    def close(self) -> None:
        self._trainer.close()

    @property
    @override
    def step_nr(self) -> int:
        return self._trainer.step_nr
