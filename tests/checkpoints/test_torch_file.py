"""Every way a .pt file can be wrong is told apart, and none of them runs code."""

from __future__ import annotations

import pickle
from collections import deque
from pathlib import Path

import pytest
import torch

from lexalcm.checkpoints.torch_file import read_torch_file
from lexalcm.errors import CheckpointError

GOOD = {"model": {"w": torch.arange(400.0)}, "names": ["a"], "steps": 3}


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_tensors_numbers_and_texts_come_back(tmp_path: Path, zipped: bool) -> None:
    torch.save(GOOD, tmp_path / "f.pt", _use_new_zipfile_serialization=zipped)
    found = read_torch_file(tmp_path / "f.pt")
    assert torch.equal(found["model"]["w"], GOOD["model"]["w"])  # type: ignore[index]
    assert (found["names"], found["steps"]) == (["a"], 3)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", r"web page \(HTML\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\x28\xb5\x2f\xfdsomething", r"begins with b'\(\\xb5"),
        (b"PK\x03\x04 but no archive", "damaged or cut short"),
        (b"\x80\x02 but no pickle", "damaged"),
        (pickle.dumps({"a": 1}, protocol=5), "damaged"),
    ],
)
def test_what_is_no_pytorch_file_is_named_for_what_it_looks_like(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "f.pt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^normalizer file `.*f.pt`.*{told}"):
        read_torch_file(file, "normalizer file")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_is_an_error_of_three_lines_at_most(tmp_path: Path, zipped: bool) -> None:
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save(GOOD, whole, _use_new_zipfile_serialization=zipped)
    data = whole.read_bytes()
    for length in range(1, len(data), 37):
        cut.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=rf"cut.pt` \({length:,} bytes\)") as caught:
            read_torch_file(cut)
        assert str(caught.value).count("\n") <= 2


def test_a_class_is_refused_by_name_and_nothing_of_it_runs(tmp_path: Path) -> None:
    torch.save({"model": GOOD, "config": deque([1])}, tmp_path / "config.pt")
    with pytest.raises(CheckpointError, match="config.pt.* class collections.deque, .*without running code") as caught:
        read_torch_file(tmp_path / "config.pt")
    assert "weights_only" not in str(caught.value)
    torch.save({"model": GOOD, "config": Touch(tmp_path / "touched")}, tmp_path / "touch.pt")
    with pytest.raises(CheckpointError, match="touch.pt.* of the class"):
        read_torch_file(tmp_path / "touch.pt")
    assert not (tmp_path / "touched").exists()


def test_a_lone_tensor_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match="must hold a mapping of names to tensors, but holds a Tensor"):
        read_torch_file(tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match="none.pt` cannot be read: No such file"):
        read_torch_file(tmp_path / "none.pt")
