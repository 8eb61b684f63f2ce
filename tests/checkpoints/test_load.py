"""What can be loaded by name, card file or folder, and what a damaged one says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lexalcm.checkpoints.load import load_model
from lexalcm.errors import CardError, CheckpointError, LexalcmError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.interop import to_published

FIELDS = {
    "concept_dim": 8,
    "model_dim": 16,
    "num_context_layers": 1,
    "num_denoiser_layers": 1,
    "num_heads": 2,
    "ffn_dim": 24,
    "timestep_dim": 8,
}


def write_model(folder: Path, *, published: bool = False, **card: object) -> Path:
    torch.manual_seed(0)
    config = Pre1Config(**FIELDS)
    state = create_pre1_model(config).state_dict()
    folder.mkdir(exist_ok=True)
    save_file(
        {k: v.contiguous().clone() for k, v in (to_published(state, config) if published else state).items()},
        folder / "m.safetensors",
    )
    entries = {"name": "mine", "model_family": "lexalcm", "model_config": FIELDS, "checkpoint": "m.safetensors", **card}
    (folder / "card.yaml").write_text(yaml.safe_dump({k: v for k, v in entries.items() if v is not None}))
    return folder / "card.yaml"


@pytest.mark.parametrize("published", [False, True])
def test_a_card_file_and_its_folder_load_with_either_set_of_names(tmp_path: Path, published: bool) -> None:
    card = write_model(tmp_path / "m", published=published)
    for source in (card, tmp_path / "m"):
        model = load_model(source)
        torch.manual_seed(0)
        expected = create_pre1_model(Pre1Config(**FIELDS)).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ({"model_family": None}, "has no `model_family`"),
        ({"model_family": "lexalmc"}, '"lexalcm"'),
        ({"model_arch": "pre1_40m", "model_config": None}, "pre1_40m"),
        ({"checkpoint": "absent.safetensors"}, "absent.safetensors"),
        ({"checkpoint": None}, "without weights"),
        ({"base": "nobody"}, "nobody"),
        ({"checkpoint": "${env:HOME}/m.safetensors"}, "substitute"),
        ({"model_config": {**FIELDS, "ffn_dim": 32}}, "ffn"),
    ],
)
def test_a_wrong_card_is_named(tmp_path: Path, card: dict, told: str) -> None:
    with pytest.raises(LexalcmError, match=f"(?s){told}".replace("$", r"\$").replace("{", r"\{")):
        load_model(write_model(tmp_path / "m", **card))


@pytest.mark.parametrize("damage", ["truncated", "html", "empty"])
def test_a_damaged_file_is_an_error_with_its_path(tmp_path: Path, damage: str) -> None:
    card = write_model(tmp_path / "m")
    file = tmp_path / "m" / "m.safetensors"
    content = {
        "truncated": file.read_bytes()[: int(file.stat().st_size * 0.9)],
        "html": b"<html>not found</html>",
        "empty": b"",
    }
    file.write_bytes(content[damage])
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        load_model(card)


def test_what_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CardError, match='"pre1_400m"'):
        load_model("pre1_40m")
    with pytest.raises(CardError, match="neither a card file nor a folder"):
        load_model(str(tmp_path / "absent.yaml"))
    with pytest.raises(CheckpointError, match="holds no model"):
        load_model(tmp_path)
    with pytest.raises(CardError, match="none are published"):
        load_model("pre1_400m")
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(CardError, match="not valid YAML"):
        load_model(tmp_path / "broken.yaml")
