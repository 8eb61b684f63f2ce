from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.normalizer_file import read_normalizer_file, save_normalizer_file, write_normalizer_card
from lexalcm.errors import CheckpointError
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.factory import create_normalizer
from lexalcm.models.normalizer.statistics import NormalizerStatistics

GOLDEN = Path(os.environ.get("LEXALCM_GOLDEN", Path(__file__).parents[2] / "../shared/golden"))


def statistics(dim: int = 4, *, clipping: bool = False, **fields: Any) -> NormalizerStatistics:
    if clipping:
        fields.update(clip_min=-1 - torch.rand(dim), clip_max=1 + torch.rand(dim))
    return NormalizerStatistics(center=torch.randn(dim), scale=torch.rand(dim) + 0.1, **fields)


def same(a: NormalizerStatistics, b: NormalizerStatistics) -> bool:
    mine, theirs = a.tensors(), b.tensors()
    return set(mine) == set(theirs) and all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.mark.parametrize("clipping", [False, True])
@pytest.mark.parametrize("with_fft", [False, True])
def test_saved_statistics_and_facts_come_back(tmp_path: Path, clipping: bool, with_fft: bool) -> None:
    path = tmp_path / "deep" / "n.safetensors"
    saved = statistics(clipping=clipping, with_fft=with_fft)
    facts = {"method": "robust", "num_concepts": 12, "dead_dims": [1, 2], "files": ["a.parquet"]}
    save_normalizer_file(path, saved, facts)
    found, found_facts = read_normalizer_file(path, 4)
    assert same(found, saved) and found.with_fft is with_fft and found_facts == facts
    assert [p.name for p in path.parent.iterdir()] == ["n.safetensors"]


@pytest.mark.parametrize("clipping", [False, True])
def test_a_pt_file_has_metas_layout_and_does_not_tell_of_a_transform(tmp_path: Path, clipping: bool) -> None:
    path, saved = tmp_path / "deep" / "n.pt", statistics(clipping=clipping, with_fft=True)
    save_normalizer_file(path, saved, {"method": "robust"}, sources=["wiki", "books"])
    content = torch.load(path, weights_only=True)
    assert set(content) == {"model", "dataset_mixture"} and content["dataset_mixture"] == ["wiki", "books"]
    assert set(content["model"]) == {"center", "scale"} | ({"clip_min", "clip_max"} if clipping else set())
    found, facts = read_normalizer_file(path)
    assert same(found, saved) and found.with_fft is None and facts == {"dataset_mixture": ["wiki", "books"]}
    assert [p.name for p in path.parent.iterdir()] == ["n.pt"]


@pytest.mark.parametrize("wrapped", [True, False])
def test_half_precision_statistics_become_float32(tmp_path: Path, wrapped: bool) -> None:
    tensors = {"center": torch.zeros(3).half(), "scale": torch.full((3,), 0.012).half()}
    torch.save({"model": tensors} if wrapped else tensors, tmp_path / "n.pt")
    found, facts = read_normalizer_file(tmp_path / "n.pt", 3)
    assert found.center.dtype == found.scale.dtype == torch.float32 and facts == {}
    assert torch.equal(found.scale, tensors["scale"].float())


def test_foreign_file_without_facts_loads(tmp_path: Path) -> None:
    save_file(
        {"center": torch.zeros(3).half(), "scale": torch.ones(3), "extra": torch.ones(1)}, tmp_path / "n.safetensors"
    )
    found, facts = read_normalizer_file(tmp_path / "n.safetensors")
    assert found.center.dtype == found.scale.dtype == torch.float32
    assert found.with_fft is None and facts == {}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"center": torch.zeros(3)}, "`center` and `scale`, but has center"),
        ({"mean": torch.zeros(3), "std": torch.ones(3)}, "but has mean, std"),
        ({"center": torch.zeros(3), "scale": torch.ones(4)}, "`scale` must be one vector"),
        ({"center": torch.zeros(1, 3), "scale": torch.ones(1, 3)}, "`center` must be one vector"),
        ({"center": torch.zeros(3), "scale": torch.tensor([1.0, 0.0, 1.0])}, "positive"),
        ({"center": torch.tensor([0.0, float("nan"), 0.0]), "scale": torch.ones(3)}, "`center` must be finite"),
        ({"center": torch.zeros(4), "scale": torch.ones(4)}, "4 dimensions, but 3 are expected"),
        ({"center": torch.zeros(3), "scale": torch.ones(3), "clip_min": torch.zeros(3)}, "both or not at all"),
        (
            {"center": torch.zeros(3), "scale": torch.ones(3), "clip_min": torch.ones(3), "clip_max": torch.zeros(3)},
            "`clip_min` must be at most `clip_max`",
        ),
    ],
)
def test_unfit_file_is_refused_with_its_reason(
    tmp_path: Path, suffix: str, tensors: dict[str, torch.Tensor], message: str
) -> None:
    file = tmp_path / f"n{suffix}"
    if suffix == ".pt":
        torch.save({"model": tensors, "dataset_mixture": []}, file)
    else:
        save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"n{suffix}`.*{message}"):
        read_normalizer_file(file, 3)


def test_missing_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_normalizer_file(tmp_path / "none.safetensors")
    (tmp_path / "n.yaml").write_text("name: n")
    with pytest.raises(CheckpointError, match=r"is a card.*`normalizer\.name`"):
        read_normalizer_file(tmp_path / "n.yaml")
    torch.save({"center": torch.zeros(3)}, tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_normalizer_file(tmp_path / "n.safetensors")
    (tmp_path / "n.pt").write_text("<html>Sign in</html>")
    with pytest.raises(CheckpointError, match="normalizer file .*web page"):
        read_normalizer_file(tmp_path / "n.pt")
    torch.save({"model": {"center": [0.0], "scale": [1.0]}}, tmp_path / "n.pt")
    with pytest.raises(CheckpointError, match="`center` must be a tensor, but is a list"):
        read_normalizer_file(tmp_path / "n.pt")


def test_card_names_the_file_relatively_and_records_the_config(tmp_path: Path) -> None:
    config = NormalizerConfig(dim=384, quantile_min=25.0, quantile_max=75.0)
    card = write_normalizer_card(tmp_path / "wiki en.safetensors", config)
    assert card == tmp_path / "wiki en.yaml"
    assert yaml.safe_load(card.read_text()) == {
        "name": "wiki_en",
        "model_family": "sonar_normalizer",
        "model_arch": "base",
        "model_config": {"dim": 384, "quantile_min": 25.0, "quantile_max": 75.0},
        "checkpoint": "wiki en.safetensors",
    }


def test_card_of_an_arch_records_only_what_differs_from_it(tmp_path: Path) -> None:
    config = NormalizerConfig(clip_proba=1e-4, with_fft=True)
    card = write_normalizer_card(tmp_path / "n.pt", config, "clipping_fft")
    assert yaml.safe_load(card.read_text()) == {
        "name": "n",
        "model_family": "sonar_normalizer",
        "model_arch": "clipping_fft",
        "checkpoint": "n.pt",
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_card_and_file_load_as_a_normalizer_of_every_arch(tmp_path: Path, suffix: str) -> None:
    for clipping, with_fft in ((False, True), (True, False), (True, True)):
        arch = ("clipping" if clipping else "base") + ("_fft" if with_fft else "")
        saved = statistics(6, clipping=clipping, with_fft=with_fft)
        save_normalizer_file(tmp_path / f"n{suffix}", saved, {})
        config = NormalizerConfig(dim=6, with_fft=with_fft, clip_proba=1e-4 if clipping else None)
        normalizer = load_model(write_normalizer_card(tmp_path / f"n{suffix}", config, arch))
        assert same(normalizer.statistics, saved) and normalizer.statistics.with_fft is with_fft


def test_normalizers_of_the_reference_release_load() -> None:
    files = sorted(GOLDEN.rglob("normalizer.pt")) if GOLDEN.is_dir() else []
    if not files:
        pytest.skip(f"there are no golden vectors at {GOLDEN}")
    for file in files:
        config = NormalizerConfig(**json.loads((file.parent / "config.json").read_text())["sonar_normalizer_config"])
        found, facts = read_normalizer_file(file, config.dim)
        assert found.with_clipping is (config.clip_proba is not None) and set(facts) <= {"dataset_mixture"}
        normalizer = create_normalizer(config)
        normalizer.set_statistics(**found.tensors())
        assert same(normalizer.statistics, found)
