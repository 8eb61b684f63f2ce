"""A recipe starts from trained weights, named in any way, or says in three lines why it cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lexalcm.checkpoints.load import load_model
from lexalcm.errors import CardError, CheckpointError, ConfigError, LexalcmError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.recipes.host import RecipeHost
from lexalcm.recipes.loading import find_recipe, load_train_config
from lexalcm.recipes.run import run_training
from tests.recipes.acting import ActingRecipe

SIZES = {
    "concept_dim": 8,
    "model_dim": 16,
    "num_context_layers": 1,
    "num_denoiser_layers": 2,
    "num_heads": 2,
    "ffn_dim": 32,
    "timestep_dim": 8,
}


def nothing(context: Any) -> None: ...


def config_of(*overrides: str) -> LcmTrainConfig:
    host = RecipeHost(ActingRecipe(nothing), no_rich=True)
    return load_train_config(host, find_recipe("quickstart"), ["model.config_overrides=null", *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model's card and weights."""
    folder = tmp_path_factory.mktemp("cards")
    torch.manual_seed(0)
    model = create_pre1_model(Pre1Config(**SIZES))
    model.set_normalizer(center=torch.randn(8), scale=torch.rand(8) + 0.5)
    save_file(model.state_dict(), folder / "w.safetensors")
    base = {"name": "base", "model_family": "lexalcm", "model_config": SIZES, "checkpoint": "w.safetensors"}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    (folder / "derived").mkdir()
    derived = {"name": "derived", "base": "base", "model_config": {"denoiser_dropout_p": 0.3}}
    (folder / "derived" / "derived.yaml").write_text(yaml.safe_dump(derived))
    (folder / "card.yaml").write_text(yaml.safe_dump({**base, "name": "in_the_folder"}))
    return folder


@pytest.mark.parametrize("place", ["base.yaml", "card.yaml", "."])
def test_a_card_or_folder_given_by_path_is_what_training_starts_from(trained: Path, place: str) -> None:
    model = config_of(f"model.name={trained / place}").model
    assert (model.name, model.family, model.path) == (None, "lexalcm", trained / "w.safetensors")
    assert {name: model.config_overrides[name] for name in SIZES} == SIZES  # type: ignore[index]


def test_a_relative_path_of_a_base_card_is_taken_from_that_cards_folder(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRSEQ2_ASSET_DIR", str(trained))
    model = config_of("model.name=derived").model
    assert model.path == trained / "w.safetensors"
    assert model.config_overrides["denoiser_dropout_p"] == 0.3  # type: ignore[index]


def test_cards_of_extra_paths_are_known(trained: Path) -> None:
    overrides = ["model.name=derived", f"common.assets.extra_paths=[{trained}]"]
    assert config_of(*overrides).model.path == trained / "w.safetensors"


def test_fields_of_the_recipe_go_over_those_of_the_card(trained: Path) -> None:
    model = config_of(f"model.name={trained}", "model.config_overrides={bridge_dropout_p: 0.4}").model
    assert model.config_overrides["bridge_dropout_p"] == 0.4  # type: ignore[index]


def test_training_begins_with_the_weights_and_statistics_of_the_card(
    trained: Path, tmp_path: Path, tiny_corpus: Path
) -> None:
    every = ("num_steps", "validate_every_n_steps", "checkpoint_every_n_steps", "publish_metrics_every_n_steps")
    steps = [f"regime.{name}=1" for name in every]
    more = ["dataset.reading.concepts_per_batch=128", "optimizer.config.lr=1e-30", "ema.decay=null"]
    own = ["model.config_overrides=null", f"model.name={trained}", f"dataset.path={tiny_corpus}"]
    assert run_training("quickstart", tmp_path / "run", overrides=[*own, *steps, *more], no_rich=True) == 0
    before, after = load_model(trained), load_model(tmp_path / "run")
    # A second start goes on from the run's own checkpoint, and knows its recipe again.
    assert run_training("quickstart", tmp_path / "run", overrides=[*own, *steps, *more, "regime.num_steps=2"]) == 0
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=0.0, atol=1e-20)


def test_weights_that_must_be_fetched_are_left_to_fairseq2() -> None:
    model = config_of("model.name=lexalcm_pre1").model
    assert (model.name, model.path) == ("lexalcm_pre1", None)


def damaged(trained: Path, folder: Path, how: str) -> Path:
    """A copy of the model with a fault; returns its card."""
    state = load_file(trained / "w.safetensors")
    card = yaml.safe_load((trained / "card.yaml").read_text())
    if how == "truncated":
        data = (trained / "w.safetensors").read_bytes()
        (folder / "w.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "html":
        card["checkpoint"] = "w.pt"
        (folder / "w.pt").write_text("<html>sign in</html>")
    elif how == "class":
        card["checkpoint"] = "w.pt"
        torch.save({"model": state, "where": Path(os.curdir)}, folder / "w.pt")
    elif how == "sizes":
        save_file(state, folder / "w.safetensors")
        card["model_config"]["concept_dim"] = 6
    elif how == "key":
        del state["output_proj.bias"]
        save_file(state, folder / "w.safetensors")
    elif how == "family":
        card["model_family"] = "lexalmc"
    elif how == "arch":
        card["model_arch"] = "pre1_40m"
    elif how == "field":
        card["model_config"]["ffn_dmi"] = 6
    elif how == "normalizer":
        card.update(model_family="two_tower_diffusion_lcm", model_config={"sonar_normalizer_name": "nobodys"})
        torch.save({}, folder / "w.safetensors")
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


@pytest.mark.parametrize(
    ("how", "kind", "told"),
    [
        ("missing", CheckpointError, r"w\.safetensors, which does not exist"),
        ("truncated", CheckpointError, r"w\.safetensors` .* is damaged or cut short"),
        ("html", CheckpointError, r"w\.pt` .* it is a web page \(HTML\)"),
        ("class", CheckpointError, r"w\.pt` .* an object of the class pathlib\."),
        ("sizes", CheckpointError, r"has the shape \[.*8.*\], but by Card in_the_folder .* is \[.*6.*\]"),
        ("key", CheckpointError, r"missing: output_proj\.bias"),
        ("family", CardError, r'`model_family` is lexalmc, .*"lexalcm"'),
        ("arch", CardError, r'`model_arch`: "pre1_40m".*"pre1_400m"'),
        ("field", CardError, r'`model_config` has no field `ffn_dmi`.*"ffn_dim"'),
        ("normalizer", CardError, r"`sonar_normalizer_name`: \"nobodys\""),
    ],
)
def test_what_is_wrong_with_a_card_or_its_weights_is_told_before_anything_is_written(
    trained: Path, tmp_path: Path, tiny_corpus: Path, how: str, kind: type[LexalcmError], told: str
) -> None:
    (tmp_path / "bad").mkdir()
    card = damaged(trained, tmp_path / "bad", how)
    own = ["model.config_overrides=null", f"model.name={card}", f"dataset.path={tiny_corpus}"]
    with pytest.raises(kind, match=f"(?s){told}") as caught:
        run_training("quickstart", tmp_path / "run", overrides=own, no_rich=True)
    assert len(str(caught.value).splitlines()) <= 3
    assert not (tmp_path / "run").exists()


def test_weights_named_by_path_are_checked_too(trained: Path, tmp_path: Path) -> None:
    sizes = ", ".join(f"{name}: {value}" for name, value in SIZES.items())
    own = ["model.family=lexalcm", "model.arch=null", f"model.path={trained / 'w.safetensors'}"]
    assert config_of(*own, f"model.config_overrides={{{sizes}}}").model.path == trained / "w.safetensors"
    with pytest.raises(CheckpointError, match=r"w\.safetensors: .* but by `model` of the recipe the model's is"):
        config_of(*own)
    with pytest.raises(CheckpointError, match=r"`model\.path`: .*absent\.pt does not exist"):
        config_of(*own[:2], f"model.path={tmp_path / 'absent.pt'}")
    with pytest.raises(ConfigError, match=r"`model\.config_overrides` has no field `ffn_dmi`"):
        config_of(*own, "model.config_overrides={ffn_dmi: 3}")


def test_shards_of_a_run_that_is_still_training_must_be_put_together_first(trained: Path, tmp_path: Path) -> None:
    shards = tmp_path / "run" / "checkpoints" / "step_4" / "model" / "pp_00" / "tp_00"
    shards.mkdir(parents=True)
    for rank in range(2):
        torch.save({}, shards / f"sdp_0{rank}.pt")
    card = {"name": "last_checkpoint", "model_family": "lexalcm", "model_config": SIZES}
    (tmp_path / "run" / "checkpoints" / "model.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(CheckpointError, match=r"(?s)in parts, one a rank.*fairseq2 lcm export RUN OUT"):
        config_of(f"model.name={tmp_path / 'run'}")


def test_a_foreign_card_cannot_put_the_environment_into_a_run(trained: Path, tmp_path: Path) -> None:
    card = yaml.safe_load((trained / "card.yaml").read_text())
    card["checkpoint"] = "${env:HOME}/w.safetensors"
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(CardError, match="would substitute something of this machine"):
        config_of(f"model.name={tmp_path / 'card.yaml'}")
