"""A disk without room: told before the first step, and when it fills up later, with the last good checkpoint."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fairseq2.io import DataNotPicklableError
from fairseq2.recipe.config import RegimeSection
from torch.nn import Linear

from lexalcm.checkpoints.resolve import saved_steps
from lexalcm.errors import ConfigError, RunError
from lexalcm.recipes.checkpoint_files import RestrictedDumper
from lexalcm.recipes.disk_space import check_disk_space, checkpoint_bytes
from lexalcm.recipes.run import run_training


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda num_bytes: monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, num_bytes))


def train(folder: Path, overrides: list[str]) -> int:
    return run_training("quickstart", folder, overrides=overrides, no_rich=True)


def test_what_a_checkpoint_takes_is_known_before_it_is_written(tmp_path: Path, tiny_overrides: list[str]) -> None:
    model = Linear(1000, 1000)
    assert checkpoint_bytes(model, with_ema=True) == pytest.approx(4 * 4 * 1_001_000, rel=0.1)
    assert checkpoint_bytes(model.requires_grad_(False), with_ema=True) == pytest.approx(4 * 1_001_000, rel=0.3)
    optimizer = torch.optim.AdamW(model.requires_grad_(True).parameters())
    model(torch.ones(1, 1000)).sum().backward()
    optimizer.step()
    for name, state in (("model", model.state_dict()), ("optimizer", optimizer.state_dict())):
        RestrictedDumper().dump(state, tmp_path / f"{name}.pt")
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written <= checkpoint_bytes(model, with_ema=False) <= 1.1 * written


def test_too_little_room_is_refused_by_both_numbers_before_the_first_step(
    tmp_path: Path, tiny_overrides: list[str], free: Any
) -> None:
    free(1 << 18)
    with pytest.raises(RunError, match=r"(?s)needs about 1\.\d MiB, but only 0\.2 MiB are free in .*--checkpoint-dir"):
        train(tmp_path / "run", tiny_overrides)
    assert not (tmp_path / "run" / "metrics").exists()


@pytest.mark.parametrize(
    ("fields", "saved", "told"),
    [
        ({"keep_last_n_checkpoints": 2}, [], "up to 3 more"),  # the new one is written before an old one is deleted
        ({"keep_last_n_checkpoints": 2}, [5, 10], "up to 1 more"),
        ({}, [], "up to 20 more"),
        ({}, [10], "up to 18 more"),
        ({"keep_last_n_checkpoints": 1, "keep_best_n_checkpoints": 3}, [], "up to 5 more"),
        ({"checkpoint_every_n_steps": None}, [], "up to 1 more"),
    ],
)
def test_room_for_those_that_are_kept_is_asked_for(
    tmp_path: Path, free: Any, caplog: pytest.LogCaptureFixture, fields: dict[str, Any], saved: list[int], told: str
) -> None:
    for step in saved:
        (tmp_path / f"step_{step}").mkdir()
    regime = RegimeSection(**{"num_steps": 100, "checkpoint_every_n_steps": 5, **fields})
    number = int(told.split()[2])
    with caplog.at_level("WARNING", logger="fairseq2"):
        free(number * (1 << 30))
        check_disk_space(tmp_path, 1 << 30, regime)
        assert not caplog.text
        if number > 1:
            free(number * (1 << 30) - 1)
            check_disk_space(tmp_path, 1 << 30, regime)
            assert told in caplog.text


def test_a_folder_that_is_not_there_yet_is_on_the_disk_of_its_parent(tmp_path: Path) -> None:
    check_disk_space(tmp_path / "a" / "b", 1, RegimeSection(num_steps=1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "full.pt").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        RestrictedDumper().dump({"x": torch.zeros(100_000)}, tmp_path / "full.pt")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        RestrictedDumper().dump({"x": torch.zeros(10)}, tmp_path / "nowhere" / "x.pt")
    with pytest.raises(DataNotPicklableError):
        RestrictedDumper().dump({"x": lambda: None}, tmp_path / "x.pt")


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fills_up_ends_the_run_by_the_last_good_checkpoint(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    dump = RestrictedDumper.dump

    def full(self: RestrictedDumper, data: Any, file: Path, options: Any = None) -> None:
        if "step_8" in str(file):
            raise OSError(reason, os.strerror(reason), str(file))
        dump(self, data, file, options)

    with monkeypatch.context() as patched:
        patched.setattr(RestrictedDumper, "dump", full)
        with pytest.raises(RunError) as caught:
            train(tmp_path / "run", tiny_overrides)
    told = str(caught.value)
    assert os.strerror(reason) in told and "step 4." in told and len(told.splitlines()) == 3
    assert saved_steps(tmp_path / "run" / "checkpoints") == [4]
    # Room was made.
    assert train(tmp_path / "run", tiny_overrides) == 0


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path, tiny_overrides: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/run of the run cannot be written: Not a directory"):
        train(tmp_path / "file" / "run", tiny_overrides)
    with pytest.raises(ConfigError, match=r"file/checkpoints of the run cannot be written"):
        run_training(
            "quickstart",
            tmp_path / "run",
            overrides=tiny_overrides,
            no_rich=True,
            checkpoint_dir=tmp_path / "file" / "checkpoints",
        )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that even root cannot write to")
def test_a_read_only_file_system_is_refused_by_name(tiny_overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="/proc/self/run of the run cannot be written"):
        train(Path("/proc/self/run"), tiny_overrides)
