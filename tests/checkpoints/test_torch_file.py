"""Every way a .pt file can be wrong is told apart, and none of them runs code."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
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


def rebuilt(file: Path, change: object) -> None:
    """Writes a good file anew, each part passed through ``change(name, data)``, which also says how it is packed."""
    torch.save(GOOD, file)
    with zipfile.ZipFile(file) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, *change(name, data))  # type: ignore[operator]


def test_a_compressed_part_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    bomb = bytes(1 << 26)
    rebuilt(tmp_path / "f.pt", lambda n, d: (bomb if n.endswith("data/0") else d, zipfile.ZIP_DEFLATED))
    assert (tmp_path / "f.pt").stat().st_size < 1 << 20
    for mmap in (False, True):  # mapped, its packed bytes would be read as numbers
        with pytest.raises(CheckpointError, match="has the compressed part"):
            read_torch_file(tmp_path / "f.pt", mmap=mmap)


def test_a_number_cannot_ask_for_memory(tmp_path: Path) -> None:
    pickled = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x40\x00\x85Rs."
    rebuilt(tmp_path / "f.pt", lambda n, d: (pickled if n.endswith("data.pkl") else d,))
    with pytest.raises(CheckpointError, match="object of the class bytearray"):
        read_torch_file(tmp_path / "f.pt")


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.zeros(1).expand(1 << 40), r"\[1099511627776\] with fewer numbers in the file"),
        (torch.zeros(3, device="meta"), "without its numbers"),
        (torch.eye(3).to_sparse(), "sparse or quantized"),
    ],
)
def test_a_tensor_that_claims_more_than_the_file_has_is_refused(
    tmp_path: Path, tensor: torch.Tensor, told: str
) -> None:
    torch.save({"a": [{"b": tensor}]}, tmp_path / "f.pt")
    with pytest.raises(CheckpointError, match=told):
        read_torch_file(tmp_path / "f.pt")


def test_lists_that_unfold_without_end_are_read_once(tmp_path: Path) -> None:
    nested: list = []
    for _ in range(60):
        nested = [nested] * 10
    torch.save({"a": nested}, tmp_path / "f.pt")
    assert len(read_torch_file(tmp_path / "f.pt")["a"]) == 10


def test_programs_and_archives_are_named_for_what_they_are(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript archive"):
        read_torch_file(tmp_path / "script.pt")
    with tarfile.open(tmp_path / "tar.pt", "w") as archive:
        archive.add(__file__, "x")
    with pytest.raises(CheckpointError, match="it is a tar archive"):
        read_torch_file(tmp_path / "tar.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("../x\x1b[2J", "y")
    with pytest.raises(CheckpointError, match="a zip archive, but none of PyTorch") as caught:
        read_torch_file(tmp_path / "zip.pt")
    assert str(caught.value).isprintable()


def test_names_must_be_texts(tmp_path: Path) -> None:
    torch.save({1: torch.zeros(2)}, tmp_path / "f.pt")
    with pytest.raises(CheckpointError, match="one name is 1"):
        read_torch_file(tmp_path / "f.pt")
