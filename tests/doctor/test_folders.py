"""Disks that are full and caches that cannot be used are told before a download or a checkpoint fails on them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from lexalcm.doctor import folders
from lexalcm.doctor.machine import GIB

CACHES = ("FAIRSEQ2_CACHE_DIR", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*CACHES, "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def test_caches_are_where_the_libraries_put_them() -> None:
    assert folders.caches({"XDG_CACHE_HOME": "/c", "TORCH_HOME": "/t"}) == {
        "FAIRSEQ2_CACHE_DIR": Path("/c/fairseq2/assets"),
        "HF_HOME": Path("/c/huggingface"),
        "TORCH_HOME": Path("/t"),
    }
    assert folders.caches({"HF_HUB_CACHE": "/hub", "HF_HOME": "/hf"})["HF_HUB_CACHE"] == Path("/hub")


@pytest.mark.parametrize(("free", "status"), [(100 * GIB, "ok"), (5 * GIB, "warning"), (GIB // 4, "error")])
def test_little_room_is_told_once_for_all_places_of_a_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, status: str
) -> None:
    for name in ("FAIRSEQ2_CACHE_DIR", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.chdir(tmp_path)
    usage = shutil._ntuple_diskusage  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(200 * GIB, 200 * GIB - free, free))
    (finding,) = folders.look_at_disks()
    assert finding.status == status and "GiB free of 200.0 GiB for the current folder, temporary files" in finding.text
    assert (finding.mend is None) == (status == "ok")


def test_a_current_folder_that_has_been_removed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gone() -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", staticmethod(gone))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert ("error", "the current folder has been removed") in [(f.status, f.text) for f in folders.look_at_disks()]


def test_a_tmpdir_that_is_not_there_is_told_with_what_is_used_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    found = [finding for finding in folders.look_at_disks() if finding.status == "warning"]
    assert any(f"{tmp_path / 'nowhere'} cannot be written to; {tmp_path} is used instead" in f.text for f in found)


def test_a_cache_tells_its_size_and_one_that_is_a_file_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "torch"
    cache.mkdir()
    with (cache / "weights").open("wb") as file:
        file.truncate(3 * GIB)
    (cache / "link").symlink_to(cache / "weights")
    monkeypatch.setenv("TORCH_HOME", str(cache))
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("FAIRSEQ2_CACHE_DIR", str(tmp_path / "later"))
    error, line = folders.look_at_caches()
    assert error.status == "error" and error.text == f"HF_HOME: {tmp_path / 'file'} is a file"
    assert f"TORCH_HOME {cache} (3.0 GiB)" in line.text and f"{tmp_path / 'later'} (empty)" in line.text
