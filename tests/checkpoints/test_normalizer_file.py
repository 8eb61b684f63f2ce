from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lexalcm.checkpoints.normalizer_file import load_normalizer_file, save_normalizer_file, write_normalizer_card
from lexalcm.errors import CheckpointError
from lexalcm.models.normalizer.config import NormalizerConfig


def test_saved_statistics_and_facts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "n.safetensors"
    center, scale = torch.randn(4), torch.rand(4) + 0.1
    facts = {"method": "robust", "num_concepts": 12, "dead_dims": [1, 2], "files": ["a.parquet"]}
    save_normalizer_file(path, center, scale, facts)
    loaded = load_normalizer_file(path, 4)
    assert torch.equal(loaded[0], center) and torch.equal(loaded[1], scale) and loaded[2] == facts
    assert [p.name for p in path.parent.iterdir()] == ["n.safetensors"]


def test_foreign_file_without_facts_loads(tmp_path: Path) -> None:
    save_file(
        {"center": torch.zeros(3).half(), "scale": torch.ones(3), "extra": torch.ones(1)}, tmp_path / "n.safetensors"
    )
    center, scale, facts = load_normalizer_file(tmp_path / "n.safetensors")
    assert center.dtype == scale.dtype == torch.float32 and facts == {}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"center": torch.zeros(3)}, "`center` and `scale`, but has center"),
        ({"mean": torch.zeros(3), "std": torch.ones(3)}, "but has mean, std"),
        ({"center": torch.zeros(3), "scale": torch.ones(4)}, "`scale` must be one vector"),
        ({"center": torch.zeros(3), "scale": torch.tensor([1.0, 0.0, 1.0])}, "positive"),
        ({"center": torch.tensor([0.0, float("nan"), 0.0]), "scale": torch.ones(3)}, "finite"),
        ({"center": torch.zeros(4), "scale": torch.ones(4)}, "4 dimensions, but 3 are expected"),
    ],
)
def test_unfit_file_is_refused_with_its_reason(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file(tensors, tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_normalizer_file(tmp_path / "n.safetensors", 3)


def test_missing_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_normalizer_file(tmp_path / "none.safetensors")
    torch.save({"center": torch.zeros(3)}, tmp_path / "n.pt")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_normalizer_file(tmp_path / "n.pt")


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
