"""Makes items ready in a background thread, a few ahead of who takes them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any


class Producer:
    """Runs an iterator in a thread, at most ``depth`` items ahead; with depth 0 in the caller's own."""

    def __init__(self, make: Callable[[], Iterator[Any]], depth: int) -> None:
        self._iterator = make()
        self._queue: Queue[tuple[Any, BaseException | None]] = Queue(maxsize=max(depth, 1))
        self._stopped = Event()
        self._ended = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, daemon=True, name="batches") if depth else None
        # Also called when the interpreter exits, which a thread inside Arrow's or torch's code would abort.
        self._end = weakref.finalize(self, _end_thread, self._thread, self._queue, self._stopped)
        if self._thread is not None:
            self._thread.start()

    def next(self) -> Any | None:
        """Returns the next item, ``None`` at the end; raises what the iterator raised, at every call from then on."""
        if self._error is not None:
            # A generator that raised is at its end: asked again, it would pass for one that has nothing left.
            raise self._error
        if self._ended:
            return None
        if self._thread is None:
            item = self._next_of_iterator()
        else:
            item, self._error = self._queue.get()
            if self._error is not None:
                raise self._error
        self._ended = item is None
        return item

    def _next_of_iterator(self) -> Any | None:
        try:
            return next(self._iterator, None)
        except Exception as error:
            self._error = error
            raise

    def stop(self) -> None:
        """Ends the thread; items made ready are dropped."""
        self._end()

    def _run(self) -> None:
        try:
            for item in self._iterator:
                self._queue.put((item, None))
                if self._stopped.is_set():
                    return
            self._queue.put((None, None))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asks for the next item
            self._queue.put((None, error))


def _end_thread(thread: Thread | None, queue: Queue[Any], stopped: Event) -> None:
    stopped.set()
    while thread is not None and thread.is_alive():
        try:
            queue.get(timeout=0.05)
        except Empty:
            continue
