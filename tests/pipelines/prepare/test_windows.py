"""A window has as many documents as fit in memory, and a shard always has the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lexalcm.pipelines.prepare.inputs import InputConfig, RawShard, plan_inputs
from lexalcm.pipelines.prepare.windows import Windows


def shard(folder: Path, lengths: list[int]) -> RawShard:
    rows = [{"id": str(i), "text": "x" * length} for i, length in enumerate(lengths)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return plan_inputs(InputConfig(paths=(str(folder / "a.jsonl"),)), num_shards=1).shards[0]


def sizes(windows: Windows) -> list[int]:
    return [table.num_rows for table in windows.to_batches(1)]


def test_short_documents_come_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexalcm.pipelines.prepare.windows.DOCUMENTS_AT_A_TIME", 20)
    windows = Windows(shard=shard(tmp_path, [5] * 50))
    assert sizes(windows) == [20, 20, 10]
    ids = [name for table in windows for name in table.column("id").to_pylist()]
    assert ids == [str(i) for i in range(50)]


def test_long_documents_come_few_at_a_time_and_none_is_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexalcm.pipelines.prepare.windows._CHARACTERS_AT_A_TIME", 100)
    assert sizes(Windows(shard=shard(tmp_path, [60, 40, 1, 500, 30, 30, 30, 30]))) == [2, 1, 1, 3, 1]
