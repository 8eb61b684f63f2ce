"""One worker, as stopes and submitit see it: it runs its share of the work and says in words what came of it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from _thread import interrupt_main
from dataclasses import dataclass
from time import sleep
from typing import Any, Final

from lexalcm import errors
from lexalcm.errors import LexalcmError
from lexalcm.pipelines.quiet_stopes import Requirements, StopesModule

_LOOK_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Outcome:
    """What came of a worker's share. Text, because an exception may not survive the way to another process."""

    failure: str | None = None
    """Why it stopped; ``None``: all is done."""

    kind: str | None = None
    """The class of :mod:`lexalcm.errors` that it raised; ``None``: it died of something unforeseen."""

    def user_error(self) -> LexalcmError | None:
        """The typed error that the worker raised, as it would have been raised here."""
        if self.kind is None:
            return None
        return getattr(errors, self.kind, LexalcmError)(self.failure)


class Worker(StopesModule):
    """Wraps the module that does the work: its items are the workers, and no exception of theirs gets out."""

    def __init__(
        self, work: StopesModule, items: list[Any], *, name: str, max_retries: int, parent: int | None
    ) -> None:
        """
        :param items: ``work.array()``, one a worker.
        :param parent: The process whose end ends the workers; ``None``: they outlive it.
        """
        super().__init__(work.config)
        self._work, self._items, self._name, self._max_retries, self._parent = work, items, name, max_retries, parent

    def array(self) -> list[Any]:
        return self._items

    def name(self) -> str:
        return self._name

    def requirements(self) -> Requirements:
        return Requirements()  # what a worker gets is the launcher's business

    def should_retry(self, ex: Exception, attempt: int, iteration_value: Any = None, iteration_index: int = 0) -> bool:
        # stopes asks once more than it is allowed to retry.
        return attempt < self._max_retries

    def run(self, iteration_value: Any = None, iteration_index: int = 0) -> Outcome:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s - %(message)s")
        if self._parent is not None:
            _end_with(self._parent)
        try:
            self._work(iteration_value=iteration_value, iteration_index=iteration_index)
        except LexalcmError as error:
            sys.stderr.write(f"error: {error}\n")
            # The nearest class of ours: a subclass may not be there where the command waits.
            ours = next(cls for cls in type(error).__mro__ if cls.__module__ == errors.__name__)
            return Outcome(str(error), ours.__name__)
        except Exception as error:
            traceback.print_exc()
            return Outcome(traceback.format_exception_only(error)[-1].strip().split("\n")[0])
        return Outcome()


def _end_with(parent: int) -> None:
    """Makes this process stop at SIGINT and SIGTERM, and when its parent is gone, be it by ``kill -9``."""
    # submitit lets SIGTERM pass, and a shell's background processes are born deaf to SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        sleep(_LOOK_SECONDS)
    interrupt_main()  # what is half written gets removed, if the main thread listens
    sleep(_GRACE_SECONDS)
    os._exit(1)


def worker_device(device: str, worker: int) -> str:
    """Returns the device of a worker: the machine's GPUs in turn for ``cuda``, and for ``auto`` where there are any."""
    if device not in ("auto", "cuda"):
        return device
    import torch

    if device == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{worker % max(1, torch.cuda.device_count())}"
