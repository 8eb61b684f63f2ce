"""What lies in a folder is recognised, checked and given cards by which it loads; nothing is ever replaced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from lexalcm.checkpoints.load import load_model
from lexalcm.cli.main import main
from lexalcm.models.pre1.model import Pre1Model
from tests.checkpoints.tiny_models import (
    denoised,
    equal,
    meta_model,
    write_meta_step,
    write_normalizer,
    write_published,
)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run_import(*words: object) -> int:
    return main(["lcm", "import", *map(str, words)])


def cards(file: Path) -> list[dict]:
    return list(yaml.safe_load_all(file.read_text()))


def test_a_run_of_metas_trainer_gets_a_card_that_needs_no_other(
    tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_meta_step(tmp_path / "big run" / "checkpoints" / "step_4", meta_model())
    write_normalizer(tmp_path / "big run")
    assert run_import(tmp_path / "big run") == 0
    out = capsys.readouterr().out
    assert "a checkpoint of Meta's trainer, step 4" in out and "FAIRSEQ2_ASSET_DIR" in out
    assert "big_run  two_tower_diffusion_lcm, 4,318 parameters, concepts of 6 dimensions" in out
    (tmp_path / "big run" / "house_normalizer.yaml").unlink()
    loaded = load_model(work / "big_run.yaml")
    assert equal(loaded, meta_model()) and torch.equal(denoised(loaded), denoised(meta_model()))
    (card,) = cards(work / "big_run.yaml")
    assert card["name"] == "big_run" and Path(card["checkpoint"]).is_absolute()


@pytest.mark.parametrize("place", ["", "model_card.yaml", "model.pt"])
def test_a_step_its_card_and_its_weights_mean_the_same(tmp_path: Path, work: Path, place: str) -> None:
    step = tmp_path / "run" / "checkpoints" / "step_4"
    write_meta_step(step, meta_model())
    write_normalizer(step)
    assert run_import(step / place) == 0
    assert equal(load_model(work / "run_step_4.yaml"), meta_model())


def test_weights_that_no_card_beside_them_names_are_refused(
    tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_meta_step(tmp_path / "step_4", meta_model())
    torch.save({}, tmp_path / "step_4" / "other.pt")
    assert run_import(tmp_path / "step_4" / "other.pt") == 2
    assert "other.pt is not what a card beside it names" in capsys.readouterr().err and not list(work.iterdir())


@pytest.mark.parametrize("revision", ["documented", "final"])
def test_a_published_model_gets_two_cards_and_is_told_for_what_it_is(
    tmp_path: Path, work: Path, revision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    original = write_published(tmp_path / "lexa", revision)
    assert run_import(tmp_path / "lexa", "--name", "pre1") == 0
    out = capsys.readouterr().out
    assert f"revision {revision} ({len(original.state_dict()) + 1} tensors)" in out
    assert "trained with the original objective" in out
    first, second = cards(work / "pre1.yaml")
    assert (first["name"], first["model_family"]) == ("pre1", "lexalcm")
    assert (second["name"], second["model_family"]) == ("pre1_original", "lexalcm_original")
    assert isinstance(load_model(work / "pre1.yaml"), Pre1Model)
    (work / "second.yaml").write_text(yaml.safe_dump(second))
    loaded = load_model(work / "second.yaml")
    assert equal(loaded, original)
    embeddings, noise = torch.randn(1, 3, 6), torch.randn(1, 3, 8)
    assert torch.equal(loaded(embeddings, noise=noise).predicted, original(embeddings, noise=noise).predicted)


def test_an_export_in_the_published_layout_is_not_called_the_original(
    tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published(tmp_path / "lexa")
    assert main(["lcm", "export", str(tmp_path / "lexa"), str(tmp_path / "ours"), "--format", "huggingface"]) == 0
    capsys.readouterr()
    assert run_import(tmp_path / "ours") == 0
    out = capsys.readouterr().out
    assert "exported by lexalcm" in out and "original objective" not in out
    assert [card["name"] for card in cards(work / "ours.yaml")] == ["ours"]


def test_both_cards_of_a_run_are_named_anew(tmp_path: Path, work: Path) -> None:
    write_meta_step(tmp_path / "step_1", meta_model())
    write_normalizer(tmp_path / "step_1")
    model = tmp_path / "run" / "model"
    assert main(["lcm", "export", str(tmp_path / "step_1"), str(model)]) == 0
    (card,) = cards(model / "card.yaml")
    raw = {**card, "name": "model_raw", "trained_steps": 9}
    (model / "card.yaml").write_text(yaml.safe_dump_all([card, raw]))
    assert run_import(tmp_path / "run", "--name", "house", "--output", tmp_path / "new" / "h.yaml") == 0
    found = cards(tmp_path / "new" / "h.yaml")
    assert [card["name"] for card in found] == ["house", "house_raw"] and found[1]["trained_steps"] == 9


def test_nothing_is_written_for_what_does_not_load(
    tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published(tmp_path / "lexa")
    tensors = load_file(tmp_path / "lexa" / "model.safetensors")
    tensors["PreNet_C_Up.norm.weight"] = torch.zeros(7)
    save_file(tensors, tmp_path / "lexa" / "model.safetensors")
    assert run_import(tmp_path / "lexa") == 2
    assert "has the shape [7]" in capsys.readouterr().err
    assert run_import(tmp_path / "absent") == 2
    assert "does not exist" in capsys.readouterr().err
    assert run_import(tmp_path) == 2
    assert "holds no model" in capsys.readouterr().err
    assert not list(work.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "lexa.yaml exists already"),
        (["--output", "lexa.yaml", "--name", "other"], "lexa.yaml exists already"),
        (["--name", "pre1_400m"], "Card pre1_400m .* has the name already"),
        (["--name", "a/b"], "`--name` must consist of letters"),
        (["--output", "card.txt"], "must be a file that ends in .yaml"),
    ],
)
def test_files_and_names_that_are_taken_are_refused(
    tmp_path: Path, work: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published(tmp_path / "lexa")
    (work / "lexa.yaml").write_text("mine")
    assert run_import(tmp_path / "lexa", *words) == 2
    assert re.search(told, capsys.readouterr().err)
    assert [(file.name, file.read_text()) for file in work.iterdir()] == [("lexa.yaml", "mine")]
