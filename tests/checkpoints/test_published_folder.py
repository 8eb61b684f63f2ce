"""LexaLCM-Pre1 as it was published loads from its folder, and what its weights are good for is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.published_folder import read_published_folder
from lexalcm.errors import CheckpointError
from lexalcm.models.pre1.model import Pre1Model
from lexalcm.models.pre1.original import OriginalPre1
from tests.checkpoints.tiny_models import equal, write_published


@pytest.mark.parametrize("revision", ["documented", "final"])
def test_the_folder_is_read_for_training_with_the_familys_own_schedule(
    tmp_path: Path, revision: str, caplog: pytest.LogCaptureFixture
) -> None:
    original = write_published(tmp_path / "lexa", revision)
    with caplog.at_level(logging.WARNING, logger="fairseq2"):
        loaded = load_model(tmp_path / "lexa")
    assert isinstance(loaded, Pre1Model) and not loaded.training
    assert "trained with the original objective" in caplog.text and "lexalcm_original" in caplog.text
    assert torch.equal(loaded.output_proj.weight, original.PostNet_D_Down.proj.weight)
    assert loaded.config.denoiser_norm_weights == (revision == "final")
    assert (loaded.config.context_dropout_p, loaded.config.denoiser_dropout_p) == (0.05, 0.15)
    assert loaded.schedule.num_timesteps == 100
    assert torch.equal(loaded.normalizer.scale, torch.ones(6))


@pytest.mark.parametrize("revision", ["documented", "final"])
def test_its_cards_tell_revision_and_family(tmp_path: Path, revision: str) -> None:
    original = write_published(tmp_path / "lexa", revision)
    found = read_published_folder(tmp_path / "lexa")
    assert [card.name for card in found.cards] == ["lexa", "lexa_original"]
    assert found.what.endswith(f"revision {revision} ({len(original.state_dict()) + 1} tensors)")
    assert "original objective" in found.notes[0]


def test_a_latent_of_another_width_leaves_the_original_alone(tmp_path: Path) -> None:
    original = write_published(tmp_path / "lexa", d_latent=4)
    loaded = load_model(tmp_path / "lexa")
    assert isinstance(loaded, OriginalPre1) and equal(loaded, original)
    found = read_published_folder(tmp_path / "lexa")
    assert [card.name for card in found.cards] == ["lexa_original"]
    assert "`d_latent` 4" in found.notes[0] and "`input_dim` 6" in found.notes[0]


def damage(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    if how == "other model":
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    elif how == "no json":
        (folder / "config.json").write_text("<html>")
    elif how == "unknown field":
        (folder / "config.json").write_text(json.dumps({**config, "d_modle": 8}))
    elif how == "missing field":
        del config["n_heads"]
        (folder / "config.json").write_text(json.dumps(config))
    elif how == "other names":
        save_file({"layer.weight": torch.zeros(1)}, folder / "model.safetensors")
    elif how == "other sizes":
        (folder / "config.json").write_text(json.dumps({**config, "d_ff": 12}))
    elif how == "other schedule":
        tensors["alpha_bar_schedule"] = tensors["alpha_bar_schedule"] * 0.9
        save_file(tensors, folder / "model.safetensors")
    elif how == "key missing":
        del tensors["PostNet_D_Down.proj.bias"]
        save_file(tensors, folder / "model.safetensors")
    elif how == "truncated":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) * 9 // 10])


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("other model", "config.json must describe `model_type` lexa_lcm_pre1 .* but holds `model_type` llama"),
        ("no json", "config.json is not JSON"),
        ("unknown field", '`d_modle`, which LexaLCM-Pre1 does not know. Did you mean "d_model"'),
        ("missing field", "lacks fields of LexaLCM-Pre1: n_heads"),
        ("other names", "these begin with `layer.weight`"),
        ("other sizes", r"model.safetensors: `.*ffn.*` has the shape \[.*10.*\], but by Card lexa .*12"),
        ("other schedule", "alpha_bar_schedule"),
        ("key missing", "PostNet_D_Down.proj.bias"),
        ("truncated", r"model.safetensors` \([\d,]+ bytes\) is damaged or cut short"),
    ],
)
def test_a_damaged_folder_is_one_error_that_names_it(tmp_path: Path, how: str, told: str) -> None:
    write_published(tmp_path / "lexa")
    damage(tmp_path / "lexa", how)
    with pytest.raises(CheckpointError, match=f"(?s)lexa.*{told}") as caught:
        load_model(tmp_path / "lexa")
    assert len(str(caught.value).splitlines()) <= 3
