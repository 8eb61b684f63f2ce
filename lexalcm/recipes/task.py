"""The trainer as a task, with what has to happen after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from fairseq2.task import Task
from typing_extensions import override

if TYPE_CHECKING:  # importing fairseq2's trainer first is a circle among its own modules
    from fairseq2.trainer import Trainer


@final
class LcmTrainTask(Task):
    """Runs the trainer to its end, then ``on_end``."""

    def __init__(self, trainer: Trainer, *, on_end: Callable[[], None] | None = None) -> None:
        self._trainer = trainer
        self._on_end = on_end

    @override
    def run(self) -> None:
        self._trainer.run()
        if self._on_end is not None:
            self._on_end()

    @override
    def request_stop(self) -> None:
        self._trainer.request_stop()

    @override
    def close(self) -> None:
        self._trainer.close()

    @property
    @override
    def step_nr(self) -> int:
        return self._trainer.step_nr
