"""Items come in order, errors reach who asks, and nothing runs on after a stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lexalcm.data.prefetch import Producer

DEPTHS = pytest.mark.parametrize("depth", [0, 1, 4])


@DEPTHS
def test_items_come_in_order_and_the_end_stays_the_end(depth: int) -> None:
    producer = Producer(lambda: iter(range(1, 6)), depth)
    assert [producer.next() for _ in range(8)] == [1, 2, 3, 4, 5, None, None, None]


@DEPTHS
def test_an_error_comes_behind_the_items_before_it_and_stays(depth: int) -> None:
    def make() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    producer = Producer(make, depth)
    assert [producer.next(), producer.next()] == [1, 2]
    for _ in range(3):  # an error that became an end would pass for a short epoch
        with pytest.raises(KeyError, match="three"):
            producer.next()


@pytest.mark.parametrize("depth", [1, 4])
def test_no_more_is_made_than_the_depth_ahead_and_a_stop_ends_the_thread(depth: int) -> None:
    made = []

    def make() -> Iterator[int]:
        for number in range(10**9):
            made.append(number)
            yield number

    producer = Producer(make, depth)
    assert producer.next() == 0
    assert len(made) <= depth + 2  # one taken, one that waits for room
    producer.stop()
    assert producer._thread is not None and not producer._thread.is_alive()
