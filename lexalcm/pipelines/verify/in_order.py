"""Work in threads, a little ahead, whose results come in order and never pile up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from threading import Event
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MOST_HELD: Final = 4
_SECONDS_TO_STOP: Final = 0.1


def in_order(jobs: Iterable[Callable[[], Iterator[T]]], *, num_workers: int) -> Generator[T, None, None]:
    """Yields what the jobs yield, the first job's first. A thread whose results nobody has taken yet waits.

    What a job raises is raised here; closing the iterator stops the threads.
    """
    stopped = Event()
    waiting: deque[_Results[T]] = deque()
    pool = ThreadPoolExecutor(num_workers)
    try:
        for job in jobs:
            waiting.append(_Results(stopped))
            pool.submit(waiting[-1].fill, job)
            # Jobs are begun in order: the one waited for is always at work.
            if len(waiting) > 2 * num_workers:
                yield from waiting.popleft()
        while waiting:
            yield from waiting.popleft()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


class _Results(Generic[T]):
    """What one job yields, passed from its thread to the one that takes it."""

    def __init__(self, stopped: Event) -> None:
        self._stopped = stopped
        self._queue: Queue[tuple[T] | BaseException | None] = Queue(_MOST_HELD)

    def fill(self, job: Callable[[], Iterator[T]]) -> None:
        last: BaseException | None = None
        try:
            for item in job():
                if not self._put((item,)):
                    return
        except BaseException as error:  # raised where the results are taken
            last = error
        self._put(last)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_SECONDS_TO_STOP)
                return True
            except Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
