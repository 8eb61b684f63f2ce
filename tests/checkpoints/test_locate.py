"""The weights of a card are found where it says, wherever that is told from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fairseq2.assets import AssetCard
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.locate import has_weights, is_remote, locate_weights
from lexalcm.errors import CardError, CheckpointError
from tests.checkpoints.tiny_models import PUBLISHED, equal, write_published


def locate(card: AssetCard) -> Path:
    return locate_weights(card, get_dependency_resolver())


def card(folder: Path, base: AssetCard | None = None, **fields: Any) -> AssetCard:
    return AssetCard("mine", {**fields, "__base_path__": folder}, base)


def test_a_relative_path_counts_from_the_card_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "w.pt").touch()
    base = card(tmp_path / "base", checkpoint="w.pt")
    assert locate(card(tmp_path / "derived", base)) == tmp_path / "base" / "w.pt"
    with pytest.raises(CheckpointError, match=r"derived/x\.pt, which does not exist\."):
        locate(card(tmp_path / "derived", base, checkpoint="x.pt"))


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_absolute_paths_and_urls_mean_the_same(tmp_path: Path, form: str) -> None:
    (tmp_path / "w.pt").touch()
    assert locate(card(tmp_path / "other", checkpoint=form.format(tmp_path / "w.pt"))) == tmp_path / "w.pt"


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["model.safetensors", "optimizer.pt"], "model.safetensors"),
        (["model.pt", "rank_0.pt"], "model.pt"),
        (["w.bin", "README.md"], "w.bin"),
        (["a-1.safetensors", "a-2.safetensors"], ""),
        (["pp_00/tp_00/sdp_00.pt"], ""),
    ],
)
def test_a_folder_stands_for_the_weights_in_it(tmp_path: Path, names: list[str], taken: str) -> None:
    for name in names:
        (tmp_path / "w" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "w" / name).touch()
    assert locate(card(tmp_path, checkpoint="w")) == tmp_path / "w" / taken


@pytest.mark.parametrize("names", [["README.md"], ["a.pt", "b.pt"], []])
def test_a_folder_without_weights_or_with_several_lists_what_it_holds(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "w").mkdir()
    for name in names:
        (tmp_path / "w" / name).touch()
    told = rf"must hold model\.safetensors or model\.pt, but holds {', '.join(names) or 'nothing'}\."
    with pytest.raises(CheckpointError, match=told):
        locate(card(tmp_path, checkpoint="w"))


def test_a_path_inside_what_is_named_may_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "w" / "step").mkdir(parents=True)
    (tmp_path / "w" / "step" / "m.pt").touch()
    (tmp_path / "secret.pt").touch()
    inside = card(tmp_path, checkpoint="w", checkpoint_path="step/m.pt")
    assert locate(inside) == tmp_path / "w" / "step" / "m.pt"
    with pytest.raises(CardError, match=r"`checkpoint_path` \.\./secret\.pt leads out of"):
        locate(card(tmp_path, checkpoint="w", checkpoint_path="../secret.pt"))
    with pytest.raises(CheckpointError, match=r"`checkpoint_path` step/n\.pt is not in"):
        locate(card(tmp_path, checkpoint="w", checkpoint_path="step/n.pt"))


def test_what_must_be_fetched_is_told_from_what_is_here(tmp_path: Path) -> None:
    assert is_remote(card(tmp_path, checkpoint="hg://Somebody/model"))
    assert not is_remote(card(tmp_path, checkpoint="file:///a/b.pt")) and not is_remote(
        card(tmp_path, checkpoint="b.pt")
    )
    assert not has_weights(card(tmp_path, model_arch="pre1_400m"))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_weights_of_the_hub_load_from_its_cache(tmp_path: Path, hub_cache: Path) -> None:
    model = hub_cache / "models--Somebody--Lexa"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    (model / "snapshots").mkdir()
    original = write_published(model / "snapshots" / "abc")
    (tmp_path / "card.yaml").write_text(
        "name: mine\nmodel_family: lexalcm_original\nmodel_arch: final\ncheckpoint: hg://Somebody/Lexa\n"
        f"model_config: {{concept_dim: 6, model_dim: 8, latent_dim: 6, num_context_layers: 1, num_denoiser_layers: 2, "
        f"num_heads: 2, ffn_dim: 10, timestep_dim: 4, num_train_steps: {PUBLISHED['denoiser_iterations_pretrain']}, "
        f"num_inference_steps: 4}}\n"
    )
    assert equal(load_model(tmp_path / "card.yaml"), original)


@pytest.mark.usefixtures("hub_cache")
def test_what_cannot_be_fetched_says_what_to_do_without_a_network() -> None:
    for name in ("lexalcm_pre1", "lexalcm_pre1_original"):
        with pytest.raises(
            CheckpointError, match=r"hg://Lexa-B/LexaLCM_Pre1 cannot be fetched: .*\n.*lcm import FOLDER"
        ):
            load_model(name)
