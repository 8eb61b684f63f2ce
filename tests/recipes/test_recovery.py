"""What a killed run, or a failing disk, has left in a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

from lexalcm.checkpoints.damage import what_is_damaged, what_is_missing
from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.errors import CheckpointError
from lexalcm.recipes.recovery import recover
from lexalcm.recipes.run import run_training


def save(checkpoints: Path, step: int) -> Path:
    """Writes a checkpoint of one rank as the trainer does, of a few numbers."""
    folder = checkpoints / f"step_{step}"
    for name in ("trainer/rank_00", "model/pp_00/tp_00/sdp_00", "optimizer/pp_00/tp_00/sdp_00", "data_reader/dp_00"):
        file = folder / f"{name}.pt"
        file.parent.mkdir(parents=True)
        torch.save({"x": torch.arange(1000.0), "step": step}, file)
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for step in (3, 6, 9):
        save(tmp_path / "checkpoints", step)
    return tmp_path


def cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 9 // 10)


def zeroed_end(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:2000] + bytes(len(content) - 2000))


def changed_in_the_middle(file: Path) -> None:
    with ZipFile(file) as archive:
        info = max(archive.infolist(), key=lambda info: info.file_size)
        place = info.header_offset + 1500
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(content)


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def removed(file: Path) -> None:
    file.unlink()


DAMAGES = [cut_short, zeroed_end, changed_in_the_middle, emptied, removed]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("part", ["trainer", "model", "optimizer", "data_reader"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_named(
    run_folder: Path, caplog: pytest.LogCaptureFixture, damage: object, part: str
) -> None:
    (file,) = (run_folder / "checkpoints" / "step_9" / part).rglob("*.pt")
    damage(file)  # type: ignore[operator]
    with caplog.at_level("WARNING", logger="fairseq2"):
        recover(run_folder, run_folder / "checkpoints")
    assert saved_steps(run_folder / "checkpoints") == [3, 6]
    assert (run_folder / "checkpoints" / "step_9.damaged").is_dir()
    told = caplog.text
    assert "step_9 is damaged" in told and part in told and "goes on from step 6" in told


def test_a_good_folder_is_left_as_it_is(run_folder: Path) -> None:
    before = sorted(run_folder.rglob("*"))
    recover(run_folder, run_folder / "checkpoints")
    assert sorted(run_folder.rglob("*")) == before
    assert what_is_damaged(run_folder / "checkpoints" / "step_9") is None


def test_without_any_good_checkpoint_nothing_is_touched(run_folder: Path) -> None:
    for step in (3, 6, 9):
        cut_short(run_folder / "checkpoints" / f"step_{step}" / "trainer" / "rank_00.pt")
    with pytest.raises(CheckpointError, match=r"(?s)step_9 is damaged: trainer/rank_00.pt .*no earlier checkpoint"):
        recover(run_folder, run_folder / "checkpoints")
    assert saved_steps(run_folder / "checkpoints") == [3, 6, 9]


def test_a_rank_whose_part_is_missing_is_missed(run_folder: Path) -> None:
    folder = run_folder / "checkpoints" / "step_9"
    torch.save({}, folder / "data_reader" / "dp_01.pt")
    assert what_is_missing(folder) == "trainer/ has 1 file(s), data_reader/ 2"


def test_what_is_left_of_an_old_checkpoint_does_not_become_the_model(run_folder: Path) -> None:
    checkpoints = run_folder / "checkpoints"
    (checkpoints / "scores").mkdir()
    (checkpoints / "scores" / "step_3.txt").write_text("0.9\n")
    removed(next((checkpoints / "step_3" / "optimizer").rglob("*.pt")))
    recover(run_folder, checkpoints)
    assert saved_steps(checkpoints) == [6, 9]
    assert (checkpoints / "step_3.damaged").is_dir() and not list((checkpoints / "scores").iterdir())


def test_a_file_that_cannot_be_read_just_now_is_not_damaged(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(self: ZipFile) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(ZipFile, "testzip", stale)
    with pytest.raises(OSError, match="[Ss]tale"):
        recover(run_folder, run_folder / "checkpoints")
    assert saved_steps(run_folder / "checkpoints") == [3, 6, 9]


def test_a_file_that_would_unfold_is_not_unfolded(run_folder: Path) -> None:
    (file,) = (run_folder / "checkpoints" / "step_9" / "model").rglob("*.pt")
    with ZipFile(file, "w", compression=ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1 << 20))
    assert "compressed" in str(what_is_damaged(run_folder / "checkpoints" / "step_9"))


def test_a_name_is_found_for_each_damaged_checkpoint(run_folder: Path) -> None:
    (run_folder / "checkpoints" / "step_9.damaged").mkdir()
    removed(run_folder / "checkpoints" / "step_9" / "trainer" / "rank_00.pt")
    recover(run_folder, run_folder / "checkpoints")
    assert (run_folder / "checkpoints" / "step_9.damaged1").is_dir()


def test_half_written_files_are_cleared_away(run_folder: Path) -> None:
    save(run_folder / "checkpoints", 12).rename(run_folder / "checkpoints" / "step_12.tmp")
    scores, metrics = run_folder / "checkpoints" / "scores", run_folder / "metrics"
    scores.mkdir(), metrics.mkdir()
    (scores / "step_6.txt").write_text("0.5\n")
    (scores / "step_9.txt").write_text("")
    (scores / "step_3.txt").write_text("nan\n")
    (metrics / "train.jsonl").write_text('{"Step": 8}\n{"Step": 9, "Lo')
    recover(run_folder, run_folder / "checkpoints")
    assert not (run_folder / "checkpoints" / "step_12.tmp").exists()
    assert [file.name for file in scores.iterdir()] == ["step_6.txt"]
    assert (metrics / "train.jsonl").read_text() == '{"Step": 8}\n'


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*tiny_overrides, "regime.keep_last_n_checkpoints=2"]
    run_training("quickstart", tmp_path / "whole", overrides=overrides, no_rich=True)
    run_training("quickstart", tmp_path / "run", overrides=overrides, no_rich=True)
    cut_short(tmp_path / "run" / "checkpoints" / "step_12" / "optimizer" / "pp_00" / "tp_00" / "sdp_00.pt")
    (tmp_path / "run" / "model" / "card.yaml").unlink()
    assert run_training("quickstart", tmp_path / "run", overrides=overrides, no_rich=True) == 0
    assert "Restoring training from the last checkpoint at step 8" in capsys.readouterr().err
    states = [
        torch.load(tmp_path / name / "checkpoints/step_12/model/pp_00/tp_00/sdp_00.pt", weights_only=True)
        for name in ("whole", "run")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
