"""A run that is asked to stop ends after the step under way, with a checkpoint, on all ranks in the same step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
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
_STDERR: Final = 2
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
        for number in EXIT_CODES:
            handler = signal.getsignal(number)
            # Ignored on purpose: SIGINT of what a script puts in the background. None: set by other than Python.
            if handler not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *args: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.exit_code, self._since = EXIT_CODES[signal.Signals(number)], time.monotonic()
        # torchrun passes on what the terminal, or Slurm, has sent to all processes already.
        launched = _LAUNCHER_VARIABLE in os.environ
        for each in self._before:
            # The system's own way to end works even where Python's code would wait for another rank to answer.
            signal.signal(each, self._end if launched else signal.SIG_DFL)
        # Not by the log: the thread that is interrupted here may hold one of its locks, or the terminal's.
        text = f"\n{signal.Signals(number).name}: the run ends after this step, with a checkpoint; again: at once.\n"
        if os.isatty(_STDERR):
            text = _SHOW_CURSOR + text  # which a progress bar hides, and a process ended at once leaves hidden
        os.write(_STDERR, text.encode())

    def _end(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._since > _ECHO_SECONDS:
            os._exit(EXIT_CODES[signal.Signals(number)])


@final
class StopAtStep:
    """Makes all ranks stop in the same step when one of them was told to."""

    def __init__(self, signals: StopSignals, gang: Gang) -> None:
        """:param gang: Of all ranks that read data."""
        self.exit_code = 0
        """That of the signal all ranks have agreed to stop for."""
        self.on_stop: Callable[[], None] | None = None
        """Called in the step under way, once, to make it the last one."""
        self._signals = signals
        self._gang = gang
        self._agreed = 0

    def any_rank(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank. To be called on all, once before each step.

        Ranks ask each other for data anyway: what one was told goes along, and costs no second round.
        """
        asked = torch.tensor([int(flag), self._signals.exit_code], device=self._gang.device)
        self._gang.all_reduce(asked, ReduceOperation.MAX)
        highest, self._agreed = asked.tolist()
        return bool(highest)

    def watch(self, optimizer: Optimizer) -> None:
        """Stops in the step in which the ranks have agreed to; a single process needs no agreement."""
        optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        asked = self._signals.exit_code if self._gang.size == 1 else self._agreed
        if asked and not self.exit_code and self.on_stop is not None:
            self.exit_code = asked
            names = " or ".join(s.name for s, code in EXIT_CODES.items() if code == asked)
            log.warning("{} has reached {}: this step is the last one of this run.", names, self._who())
            self.on_stop()

    def _who(self) -> str:
        if self._gang.size == 1:
            return "the run"
        return "this rank" if self._signals.exit_code else "another rank"
