"""Special concepts: from files of one vector and of many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from lexalcm.data.special_concepts import load_special_concepts, write_special_concepts
from lexalcm.errors import DataError

PUBLISHED = Path(__file__).parents[3] / "shared" / "special_concepts"


def test_named_vectors_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_file({"start": np.ones(4, np.float32), "end": np.full((1, 4), 2, np.float16)}, path)
    special = load_special_concepts(path)
    assert special.names == ["end", "start"]
    assert special.get("end", 4).tolist() == [2.0] * 4 and special.get("end", 4).dtype == np.float32


def test_a_lone_embedding_is_called_like_its_file(tmp_path: Path) -> None:
    save_file({"embedding": np.ones((1, 4), np.float32)}, tmp_path / "StartOfText.safetensors")
    assert load_special_concepts(tmp_path / "StartOfText.safetensors").names == ["StartOfText"]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no {PUBLISHED}")
def test_the_published_ones_load() -> None:
    vector = load_special_concepts(PUBLISHED / "EndOfText.safetensors").get("EndOfText", 1024)
    assert float(np.linalg.norm(vector)) == pytest.approx(0.207587, abs=1e-5)


def test_an_unknown_name_offers_the_near_match_and_another_width_says_both(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_file({"start": np.ones(4, np.float32)}, path)
    with pytest.raises(DataError, match='Did you mean "start"'):
        load_special_concepts(path).get("strat", 4)
    with pytest.raises(DataError, match="4 wide.*8 wide"):
        load_special_concepts(path).get("start", 8)


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\x80\x04K\x01."])
def test_another_kind_of_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="not a safetensors file"):
        load_special_concepts(tmp_path / "s.safetensors")


@pytest.mark.parametrize(
    "value",
    [
        np.ones((2, 4), np.float32),
        np.ones((4, 1), np.float32),
        np.ones((1, 1, 4), np.float32),
        np.asarray(1.0, np.float32),
        np.full(4, np.nan, np.float32),
        np.full(4, 1e300),
    ],
    ids=["two", "column", "cube", "scalar", "NaN", "too large"],
)
def test_a_tensor_that_is_no_finite_vector_is_refused(value: np.ndarray, tmp_path: Path) -> None:
    save_file({"start": value}, tmp_path / "s.safetensors")
    with pytest.raises(DataError, match="`start` must be one finite vector"):
        load_special_concepts(tmp_path / "s.safetensors")


def test_a_missing_file_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"do not exist \(looked at /"):
        load_special_concepts(tmp_path / "s.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_every_float_type_becomes_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    save_torch_file({"start": torch.tensor([0.5, -2.0]).to(dtype)}, tmp_path / "s.safetensors")
    vector = load_special_concepts(tmp_path / "s.safetensors").get("start", 2)
    assert vector.dtype == np.float32 and vector.tolist() == [0.5, -2.0]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no {PUBLISHED}")
def test_every_published_file_is_called_by_its_name() -> None:
    files = sorted(PUBLISHED.glob("*.safetensors"))
    assert files
    for file in files:
        special = load_special_concepts(file)
        assert special.names == [file.stem] and special.get(file.stem, 1024).any()


def test_a_folder_gives_what_all_its_files_hold(tmp_path: Path) -> None:
    save_file({"embedding": np.ones((1, 4), np.float32)}, tmp_path / "Start.safetensors")
    write_special_concepts(tmp_path / "more.safetensors", {"end": np.zeros(4)}, {"end": {"role": "e"}}, encoder={})
    special = load_special_concepts(tmp_path)
    assert special.names == ["Start", "end"] and special.role_of("end") == "e" and special.role_of("Start") == "Start"
    save_file({"end": np.ones(4, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="`end` is in other.safetensors and in another file too"):
        load_special_concepts(tmp_path)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no {PUBLISHED}")
def test_the_published_folder_is_taken_as_it_is() -> None:
    special = load_special_concepts(PUBLISHED)
    assert special.names == ["EndOfText", "HelloWorld", "PaddingSentence", "StartOfText"]
    assert special.get("StartOfText", 1024).any()


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file in it ends in .safetensors"):
        load_special_concepts(tmp_path)


def test_what_is_told_of_concepts_comes_back_in_its_order_and_replaces_a_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    facts = {"z": {"role": "z", "sentence": "\u7d42\u308f\u308a\u3002"}, "a": {"role": "z"}}
    for _ in range(2):
        write_special_concepts(path, {"a": np.ones(2), "z": np.zeros(2), "m": np.ones(2)}, facts, encoder={"dim": 2})
    special = load_special_concepts(path)
    assert special.facts == facts and list(special.vectors) == ["z", "a", "m"]
    assert [file.name for file in tmp_path.iterdir()] == ["s.safetensors"]


@pytest.mark.parametrize("told", ["{", "[]", '{"concepts": [1]}', '{"concepts": {"a": 1}}'])
def test_notes_of_another_form_are_refused(told: str, tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "s.safetensors", metadata={"special_concepts": told})
    with pytest.raises(DataError, match="under `special_concepts` is not what lexalcm writes"):
        load_special_concepts(tmp_path / "s.safetensors")
