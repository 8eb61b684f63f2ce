"""Checkpoints of Meta's trainer load as it left them, moved or not, and what cannot is told by name."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lexalcm.checkpoints.load import load_model
from lexalcm.errors import CardError, CheckpointError
from tests.checkpoints.tiny_models import (
    META_CONFIG,
    denoised,
    equal,
    meta_model,
    write_meta_step,
    write_normalizer,
)


def write_run(folder: Path, *steps: int) -> Path:
    for step in steps:
        write_meta_step(folder / "checkpoints" / f"step_{step}", meta_model())
    write_normalizer(folder)
    return folder


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/step_6", "checkpoints/step_6/model_card.yaml"])
def test_a_run_loads_by_every_place_in_it(tmp_path: Path, place: str) -> None:
    run = write_run(tmp_path / "run", 3, 6)
    loaded, expected = load_model(run / place), meta_model()
    assert equal(loaded, expected) and not loaded.training
    assert torch.equal(denoised(loaded), denoised(expected))


def test_the_newest_step_with_a_model_is_taken(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 3, 20, 6)
    shards = run / "checkpoints" / "step_30"
    shards.mkdir()
    torch.save({}, shards / "rank_0.pt")
    (run / "checkpoints" / "step_40.tmp").mkdir()
    other = meta_model()
    other.denoiser.final_proj.fc.bias.data.fill_(7.0)
    torch.save({"model": other.state_dict(), "model_key": "model"}, run / "checkpoints" / "step_20" / "model.pt")
    assert equal(load_model(run), other)


def test_the_card_at_the_top_comes_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 3, 6)
    top = yaml.safe_load((run / "checkpoints" / "step_3" / "model_card.yaml").read_text())
    (run / "model_card.yaml").write_text(yaml.safe_dump(top))
    (run / "checkpoints" / "step_6" / "model.pt").unlink()
    assert equal(load_model(run), meta_model())


@pytest.mark.parametrize("at_the_top", [True, False])
def test_a_moved_run_finds_its_files_and_says_so(
    tmp_path: Path, at_the_top: bool, caplog: pytest.LogCaptureFixture
) -> None:
    old = f"{tmp_path}/before it moved/checkpoints/step_6"
    step = tmp_path / "after it moved" / "checkpoints" / "step_6"
    card = write_meta_step(step, meta_model(), old_folder=old)
    write_normalizer(tmp_path / "after it moved")
    if at_the_top:
        card = card.rename(tmp_path / "after it moved" / "model_card.yaml")
    with caplog.at_level(logging.INFO, logger="fairseq2"):
        assert equal(load_model(card), meta_model())
    assert f"names {old}/model.pt, which is not there. Taking {step}/model.pt" in caplog.text


@pytest.mark.parametrize("blank", [" ", "%20"])
def test_a_blank_in_a_path_does_no_harm(tmp_path: Path, blank: str) -> None:
    step = tmp_path / "my runs" / "step_1"
    card = write_meta_step(step, meta_model(), old_folder=f"{tmp_path}/my{blank}runs/step_1")
    write_normalizer(step)
    assert equal(load_model(card), meta_model())


@pytest.mark.parametrize("wrapped", [True, False])
def test_names_of_ddp_lose_their_prefix_with_and_without_the_wrapper(tmp_path: Path, wrapped: bool) -> None:
    card = write_meta_step(tmp_path / "step_1", meta_model(), prefix="module.")
    write_normalizer(tmp_path / "step_1")
    if not wrapped:
        file = tmp_path / "step_1" / "model.pt"
        torch.save(torch.load(file, weights_only=True)["model"], file)
    assert equal(load_model(card), meta_model())


def test_an_architecture_with_changes_is_what_a_card_says(tmp_path: Path) -> None:
    step = tmp_path / "step_1"
    write_meta_step(step, meta_model())
    write_normalizer(step)
    family = {"model_family": "two_tower_diffusion_lcm", "model_arch": "toy_two_tower_diffusion_lcm"}
    config = {**META_CONFIG, "trained_with_cf_guidance": True}
    card = {"name": "x", **family, "model_config": config, "checkpoint": "model.pt"}
    (step / "mine.yaml").write_text(yaml.safe_dump(card))
    loaded = load_model(step / "mine.yaml")
    assert equal(loaded, meta_model()) and loaded.trained_with_guidance is True  # type: ignore[attr-defined]
    assert loaded.config.noise_scheduler.prediction_type == "sample"  # type: ignore[attr-defined]


def test_cards_load_by_name_from_an_asset_folder(tmp_path: Path) -> None:
    write_meta_step(tmp_path / "cards" / "mine", meta_model(), name="my_pretrained_two_tower")
    # A card of the name that Meta's architectures have for a normalizer is no clash with ours.
    write_normalizer(tmp_path / "cards", name="dummy_sonar_normalizer")
    file = tmp_path / "cards" / "mine" / "model_card.yaml"
    file.write_text(file.read_text().replace("house_normalizer", "dummy_sonar_normalizer"))
    code = "from lexalcm import load_model; print(load_model('my_pretrained_two_tower').concept_dim)"
    environment = {**os.environ, "FAIRSEQ2_ASSET_DIR": str(tmp_path / "cards")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.strip() == "6", done.stderr


def test_the_placeholder_of_metas_architectures_needs_no_card(tmp_path: Path) -> None:
    card = write_meta_step(tmp_path / "step_1", meta_model())
    card.write_text(card.read_text().replace("house_normalizer", "dummy_sonar_normalizer"))
    assert equal(load_model(card), meta_model())


def test_a_missing_normalizer_is_named_with_the_card_that_names_it(tmp_path: Path) -> None:
    card = write_meta_step(tmp_path / "step_1", meta_model())
    with pytest.raises(CardError, match=rf"{card}.*`sonar_normalizer_name`: \"house_normalizer\"") as caught:
        load_model(card)
    assert len(str(caught.value).splitlines()) <= 3
    write_normalizer(tmp_path / "step_1", model_family="lexalcm", model_config=None)
    with pytest.raises(CardError, match="house_normalizer.* is not a normalizer's"):
        load_model(card)


def test_a_normalizer_of_other_dimensions_names_both_sides(tmp_path: Path) -> None:
    card = write_meta_step(tmp_path / "step_1", meta_model())
    write_normalizer(tmp_path / "step_1", model_config={"dim": 7})
    with pytest.raises(Exception, match=rf"{card}.*7 dimensions, but its `sonar_embed_dim` is 6"):
        load_model(card)


def test_shards_of_fsdp_are_refused_with_what_to_do(tmp_path: Path) -> None:
    step = tmp_path / "run" / "checkpoints" / "step_6"
    card = write_meta_step(step, meta_model())
    write_normalizer(tmp_path / "run")
    (step / "model.pt").rename(step / "rank_0.pt")
    told = r"(?s)step_6 holds the shards .*rank_0\.pt.*save_model_every_n_steps"
    for place in (step, card, tmp_path / "run"):
        with pytest.raises(CheckpointError, match=told):
            load_model(place)
    card.unlink()
    for place in (step, tmp_path / "run"):
        with pytest.raises(CheckpointError, match=told):
            load_model(place)


def test_weights_without_a_card_are_not_guessed(tmp_path: Path) -> None:
    step = tmp_path / "step_6"
    write_meta_step(step, meta_model()).unlink()
    with pytest.raises(CheckpointError, match=r"holds model\.pt, but no model_card\.yaml"):
        load_model(step)
    with pytest.raises(CardError, match=r"model\.pt holds weights, which do not say of what model"):
        load_model(step / "model.pt")
