"""A run that is asked to stop ends after the step under way, with a checkpoint, on all ranks in the same step."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, Final, final

import torch
from fairseq2.gang import Gang, ReduceOperation
from fairseq2.logging import log
from fairseq2.task import TaskStopException
from torch.optim import Optimizer
from typing_extensions import Self

EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
"""What a run that was stopped by a signal exits with; SIGUSR1 is how Slurm warns of the end of the time limit."""

_LAUNCHER_VARIABLE: Final = "TORCHELASTIC_RUN_ID"
_ECHO_SECONDS: Final = 2.0
_SHOW_CURSOR: Final = "\x1b[?25h"


class StoppedBySignal(TaskStopException):
    """The run ended early, in good order."""

    def __init__(self, exit_code: int, step: int) -> None:
        super().__init__()
        self.exit_code = exit_code
        self.step = step


class StopSignals:
    """While it is open, the first SIGINT, SIGTERM or SIGUSR1 is noted, and the second ends the process at once."""

    def __init__(self) -> None:
        self.exit_code = 0
        """That of the signal that came; 0 before one did."""
        self._before: dict[int, Any] = {}
        self._since = 0.0

    def __enter__(self) -> Self:
        # Python lets no other thread set handlers; a run in one, of a notebook say, is stopped by other means.
        if current_thread() is main_thread():
            self._before = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(self, *args: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.exit_code, self._since = EXIT_CODES[signal.Signals(number)], time.monotonic()
        # torchrun passes on what the terminal, or Slurm, has sent to all processes already.
        launched = _LAUNCHER_VARIABLE in os.environ
        for each in EXIT_CODES:
            # The system's own way to end works even where Python's code would wait for another rank to answer.
            signal.signal(each, self._end if launched else signal.SIG_DFL)
        if sys.stderr.isatty():
            sys.stderr.write(_SHOW_CURSOR)  # which a progress bar hides, and a process ended at once leaves hidden
        log.warning(
            "{} received: the run ends after this step (a validation under way comes first), with a checkpoint. "
            "A second one ends it at once.",
            signal.Signals(number).name,
        )

    def _end(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._since > _ECHO_SECONDS:
            os._exit(EXIT_CODES[signal.Signals(number)])


@final
class StopAtStep:
    """Asks all ranks in each step whether one of them was told to stop, before the optimizer takes the step."""

    def __init__(self, signals: StopSignals, gang: Gang, optimizer: Optimizer) -> None:
        """:param gang: Of all ranks."""
        self.exit_code = 0
        """That of the signal all ranks have agreed to stop for."""
        self.on_stop: Callable[[], None] | None = None
        """Called in the step under way, once, to make it the last one."""
        self._signals = signals
        self._gang = gang
        optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        asked = self._signals.exit_code
        if self._gang.size > 1:
            highest = torch.tensor(asked, device=self._gang.device)
            self._gang.all_reduce(highest, ReduceOperation.MAX)
            asked = int(highest)
        if asked and not self.exit_code and self.on_stop is not None:
            self.exit_code = asked
            self.on_stop()
