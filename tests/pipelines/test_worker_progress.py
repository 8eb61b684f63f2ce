"""Counters of several workers add up, whenever one looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexalcm.pipelines import worker_progress
from lexalcm.pipelines.worker_progress import Progress, ProgressBoard, WorkerProgress


def test_workers_add_up(tmp_path: Path) -> None:
    for worker, documents in ((0, 3), (1, 4)):
        with WorkerProgress(tmp_path, worker) as progress:
            progress.add(documents=documents, sentences=10 * documents)
            progress.add(units=1)
    total = ProgressBoard(tmp_path).totals()
    assert (total.num_documents, total.num_sentences, total.num_units) == (7, 70, 2)
    assert total.documents_per_second == 7 / total.seconds and total.sentences_per_second == 70 / total.seconds


def test_a_worker_writes_at_most_twice_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(worker_progress, "monotonic", lambda: now)
    board, progress = ProgressBoard(tmp_path), WorkerProgress(tmp_path, 0)
    for step, written in ((0.1, 1), (0.1, 1), (0.5, 3)):
        now += step
        progress.add(documents=1)
        assert board.totals().num_documents == written


def test_what_a_worker_is_at_is_known_at_once(tmp_path: Path) -> None:
    progress = WorkerProgress(tmp_path, 3)
    progress.add(documents=1)
    progress.at("shard 5")
    assert ProgressBoard(tmp_path).of(3).unit == "shard 5"


def test_a_folder_without_progress_and_a_file_half_seen_count_nothing(tmp_path: Path) -> None:
    assert ProgressBoard(tmp_path / "nowhere").totals() == Progress()
    (tmp_path / "worker-0.json").write_text('{"num_documents": 5')
    assert ProgressBoard(tmp_path).totals() == Progress()


def test_what_an_earlier_run_left_is_cleared(tmp_path: Path) -> None:
    with WorkerProgress(tmp_path, 0) as progress:
        progress.add(documents=1)
    board = ProgressBoard(tmp_path)
    board.clear()
    assert board.totals() == Progress()
