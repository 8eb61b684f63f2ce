"""Files of an export appear together, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import BatchNorm1d

from lexalcm.checkpoints.export_files import ExportFiles, stored_state, write_export
from lexalcm.errors import ConfigError


def fail(path: Path) -> None:
    raise OSError("disk full")


def test_a_writing_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    files = ExportFiles({"a": lambda path: path.write_text("new"), "b": fail})
    with pytest.raises(OSError, match="disk full"):
        write_export(files, tmp_path, overwrite=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "old")]
    write_export(ExportFiles({"a": lambda path: path.write_text("new")}), tmp_path, overwrite=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "new")]


def test_nothing_is_written_beside_a_file_that_must_stay(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("old")
    files = ExportFiles({name: lambda path: path.write_text("new") for name in ("a", "b")})
    with pytest.raises(ConfigError, match="holds b already.*--overwrite"):
        write_export(files, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["b"]


def test_buffers_keep_their_type() -> None:
    state = stored_state(BatchNorm1d(3), torch.float16)
    assert state["weight"].dtype == torch.float16
    assert state["running_mean"].dtype == torch.float32 and state["num_batches_tracked"].dtype == torch.int64
