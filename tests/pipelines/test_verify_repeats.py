"""Equal documents are found whether they fit into memory or not, and results of threads come in order."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest

from lexalcm.pipelines.verify.in_order import in_order
from lexalcm.pipelines.verify.repeats import RepeatFinder, records


def some_records(rng: np.random.Generator, *, num_files: int, num_rows: int) -> list[np.ndarray]:
    tables = []
    for file in range(num_files):
        contents = rng.integers(0, num_files * num_rows, num_rows).tolist()
        hashes = [md5(str(content).encode()).digest() for content in contents]
        tables.append(records(hashes, np.arange(num_rows), file=file, split=-1))
    return tables


@pytest.mark.parametrize("most_in_memory", [1 << 20, 300, 1])
def test_groups_are_those_of_a_dictionary_on_disk_too(
    most_in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tables = some_records(np.random.default_rng(0), num_files=4, num_rows=500)
    expected: defaultdict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for table in tables:
        for record in table:
            expected[record["hash"].tobytes()].append((int(record["file"]), int(record["row"])))
    with RepeatFinder(most_in_memory=most_in_memory) as finder:
        for table in tables:
            finder.add(table)
        assert bool(list(tmp_path.iterdir())) == (most_in_memory < 2000)
        found = [[(int(r["file"]), int(r["row"])) for r in group] for group in finder.groups()]
    assert sorted(found) == sorted(places for places in expected.values() if len(places) > 1)
    assert all(group == sorted(group) for group in found)
    if most_in_memory >= 2000:
        assert found == sorted(found)
    assert not list(tmp_path.iterdir()), "temporary files are removed"


def test_nothing_is_equal_to_nothing() -> None:
    with RepeatFinder() as finder:
        assert list(finder.groups()) == []


def test_results_come_in_the_order_of_jobs() -> None:
    def job(number: int) -> Iterator[tuple[int, int]]:
        for part in range(9):
            time.sleep(0.0005 * (number % 3))
            yield number, part

    found = list(in_order((partial(job, n) for n in range(20)), num_workers=3))
    assert found == [(n, part) for n in range(20) for part in range(9)]


def test_what_a_job_raises_is_raised_where_results_are_taken() -> None:
    def job() -> Iterator[int]:
        yield 1
        raise ValueError("of a job")

    results = in_order(iter([job, job]), num_workers=2)
    assert next(results) == 1
    with pytest.raises(ValueError, match="of a job"):
        next(results)


def test_threads_wait_for_results_to_be_taken_and_end_when_nobody_does() -> None:
    made = []

    def job() -> Iterator[int]:
        for number in range(10_000):
            made.append(number)
            yield number

    before = threading.active_count()
    results = in_order([job] * 3, num_workers=2)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(made) < 50
    results.close()
    assert threading.active_count() == before
