"""The output folder remembers what is done, and is never taken for something else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lexalcm.errors import ConfigError, DataError
from lexalcm.pipelines.prepare.folder import PreparedFolder, ShardNote
from lexalcm.pipelines.prepare.record import ShardRecord

SETTINGS = {"segmenter": "rules", "paths": ["a.jsonl"], "num_shards": None}


def begin(folder: PreparedFolder, settings: dict[str, object] = SETTINGS, *, overwrite: bool = False) -> bool:
    """As the command does: look, and make ready what is not there yet."""
    if folder.check(settings, overwrite=overwrite):
        return True
    folder.begin(settings, {"shards": []})
    return False


def finished(folder: PreparedFolder, index: int) -> ShardNote:
    name = f"split=train/part-{index:05d}.parquet"
    file = folder.path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x" * (index + 1))
    record = ShardRecord(
        documents=Counter({"train": 2}), num_sentences=5, truncated_places=[("a.jsonl:3", "text_sentences", 1)]
    )
    note = ShardNote(index, {name: index + 1}, record, {"encoder": {"dim": 8}})
    folder.finish_shard(note)
    return note


def test_finished_shards_are_remembered(tmp_path: Path) -> None:
    folder = PreparedFolder(tmp_path / "out")
    assert not begin(folder, overwrite=False)
    notes = [finished(folder, index) for index in (0, 11, 2)]
    again = PreparedFolder(tmp_path / "out")
    assert begin(again, overwrite=False)
    assert list(again.finished_shards()) == [notes[0], notes[2], notes[1]]


def test_a_shard_whose_file_is_gone_or_cut_is_not_finished(tmp_path: Path) -> None:
    folder = PreparedFolder(tmp_path / "out")
    begin(folder, overwrite=False)
    for index in range(3):
        finished(folder, index)
    (tmp_path / "out" / "split=train" / "part-00001.parquet").unlink()
    (tmp_path / "out" / "split=train" / "part-00002.parquet").write_bytes(b"xx")
    assert [note.index for note in folder.finished_shards()] == [0]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    other = {**SETTINGS, "segmenter": "newline"}
    begin(PreparedFolder(tmp_path / "out"), other)
    assert not begin(PreparedFolder(tmp_path / "out")), "nothing was done yet"
    finished(PreparedFolder(tmp_path / "out"), 0)
    with pytest.raises(ConfigError, match='`segmenter` "rules", but now it is "newline"'):
        begin(PreparedFolder(tmp_path / "out"), other)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="thesis.tex lies in it"):
            begin(PreparedFolder(tmp_path), overwrite=overwrite)
    with pytest.raises(ConfigError, match="must be a folder"):
        begin(PreparedFolder(tmp_path / "thesis.tex"), overwrite=False)


def test_overwriting_removes_the_data_and_nothing_else(tmp_path: Path) -> None:
    folder = PreparedFolder(tmp_path / "out")
    begin(folder, overwrite=False)
    finished(folder, 0)
    (folder.path / "dataset.yaml").write_text("name: out")
    (folder.path / "notes.txt").write_text("mine")
    assert not begin(folder, {**SETTINGS, "segmenter": "newline"}, overwrite=True)
    assert sorted(entry.name for entry in folder.path.iterdir()) == ["_prepare", "notes.txt"]
    assert list(folder.finished_shards()) == [] and folder.settings()["segmenter"] == "newline"


def test_damaged_settings_say_what_to_do(tmp_path: Path) -> None:
    folder = PreparedFolder(tmp_path / "out")
    begin(folder, overwrite=False)
    finished(folder, 0)
    folder.settings_file.write_text('{"settings": ')
    with pytest.raises(DataError, match="settings.json cannot be read.*--overwrite"):
        begin(folder, overwrite=False)


def test_records_add_up() -> None:
    one = ShardRecord(documents=Counter(train=2), left_out=Counter({"no text": 1}), num_sentences=3)
    two = ShardRecord(
        documents=Counter(train=1, validation=4), num_truncated=1, truncated_places=[("f:2", "text_sentences", 0)]
    )
    one.add(two)
    assert one.documents == {"train": 3, "validation": 4} and one.num_seen == 8 and one.num_truncated == 1
    assert ShardRecord.from_json(one.to_json()) == one
