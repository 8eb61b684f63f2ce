"""An export holds the model that was exported, in the layout that was asked for, and replaces nothing unasked."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lexalcm.checkpoints.load import load_model
from lexalcm.cli.main import main
from lexalcm.diffusion.schedule import ScheduleConfig
from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.base_lcm.factory import create_base_model
from lexalcm.models.layers.transformer_config import TransformerConfig
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from tests.checkpoints.tiny_models import (
    META_CONFIG,
    PUBLISHED,
    denoised,
    equal,
    meta_model,
    shake,
    write_meta_step,
    write_normalizer,
    write_published,
)

SIZES = {"concept_dim": 6, "model_dim": 8, "num_heads": 2, "ffn_dim": 10, "timestep_dim": 4, "num_context_layers": 1}


def export(*words: object) -> int:
    return main(["lcm", "export", *map(str, words)])


@pytest.fixture
def meta_run(tmp_path: Path) -> Path:
    """A step of Meta's trainer with the card of its normalizer."""
    write_meta_step(tmp_path / "step_1", meta_model())
    write_normalizer(tmp_path / "step_1")
    return tmp_path / "step_1"


def write_pre1(folder: Path, *, num_steps: int = 100, **fields: object) -> None:
    """A model with statistics of concepts, as a run of ours leaves it."""
    torch.manual_seed(0)
    config = Pre1Config(**SIZES, **fields, schedule=ScheduleConfig(num_steps=num_steps))
    model = create_pre1_model(config)
    shake(model)
    model.set_normalizer(center=torch.randn(6), scale=torch.rand(6) + 0.5)
    folder.mkdir()
    torch.save(model.state_dict(), folder / "w.pt")
    card = {"name": "mine", "model_family": "lexalcm", "model_config": asdict(config), "checkpoint": "w.pt"}
    (folder / "card.yaml").write_text(yaml.safe_dump({**card, "trained_steps": 7}))


def test_safetensors_hold_the_model_and_can_be_moved(
    meta_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(meta_run, tmp_path / "my model") == 0
    out = capsys.readouterr().out
    assert "two_tower_diffusion_lcm, 4,318 parameters, float32" in out and "model.safetensors, card.yaml" in out
    (tmp_path / "my model").rename(tmp_path / "moved")
    (meta_run / "house_normalizer.yaml").unlink()  # the card needs no other
    assert sorted(file.name for file in (tmp_path / "moved").iterdir()) == ["card.yaml", "model.safetensors"]
    loaded = load_model(tmp_path / "moved")
    assert equal(loaded, meta_model()) and torch.equal(denoised(loaded), denoised(meta_model()))
    card = yaml.safe_load((tmp_path / "moved" / "card.yaml").read_text())
    assert card["name"] == "my_model" and card["checkpoint"] == "model.safetensors"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_parameters_are_written_in_the_type_asked_for_and_statistics_in_theirs(
    meta_run: Path, tmp_path: Path, dtype: str
) -> None:
    assert export(meta_run, tmp_path / "half", "--dtype", dtype) == 0
    state = load_file(tmp_path / "half" / "model.safetensors")
    for name, value in meta_model().state_dict().items():
        expected = value if name.startswith("sonar_normalizer") else value.to(getattr(torch, dtype))
        assert state[name].dtype == expected.dtype and torch.equal(state[name], expected), name
    load_model(tmp_path / "half")


def test_metas_layout_is_what_its_trainer_writes(meta_run: Path, tmp_path: Path) -> None:
    assert export(meta_run, tmp_path / "for meta", "--format", "meta") == 0
    folder = tmp_path / "for meta"
    content = torch.load(folder / "model.pt", weights_only=True)
    assert content.keys() == {"model", "model_key"} and content["model_key"] == "model"
    assert content["model"].keys() == meta_model().state_dict().keys()
    text = (folder / "model_card.yaml").read_text()
    card = yaml.safe_load(text)
    assert list(card) == ["__source__", "checkpoint", "model_config", "model_family", "name"]
    assert card["__source__"] == "inproc" and card["checkpoint"] == (folder / "model.pt").as_uri()
    config = card["model_config"]
    assert config.keys() == {*META_CONFIG, "model_type", "frontend", "trained_with_cf_guidance"}
    assert config["denoiser"].keys() >= {"pre_denoiser", "post_denoiser", "timestep_embed_dim", "rope_theta"}
    assert "sigmoid_schedule_beta: 0\n" in text  # a whole number, as Meta's configuration has it
    normalizer = yaml.safe_load((folder / "normalizer.yaml").read_text())
    assert config["sonar_normalizer_name"] == normalizer["name"] == "for_meta_normalizer"
    statistics = torch.load(folder / "normalizer.pt", weights_only=True)["model"]
    assert torch.equal(statistics["scale"], meta_model().sonar_normalizer.scale)
    loaded = load_model(folder)
    assert equal(loaded, meta_model()) and torch.equal(denoised(loaded), denoised(meta_model()))
    assert equal(load_model(folder / "normalizer.yaml"), meta_model().sonar_normalizer)


def test_a_base_model_without_a_normalizer_goes_to_meta_without_one(tmp_path: Path) -> None:
    lcm = {"num_layers": 1, "num_attn_heads": 2, "ffn_inner_dim": 12}
    config = {"sonar_embed_dim": 6, "model_dim": 8, "max_seq_len": 16, "lcm": lcm}
    (tmp_path / "card.yaml").write_text(
        yaml.safe_dump({"name": "b", "model_family": "base_lcm", "model_config": config, "checkpoint": "b.pt"})
    )
    model = create_base_model(BaseConfig(**{**config, "lcm": TransformerConfig(**lcm)}))
    torch.save(model.state_dict(), tmp_path / "b.pt")
    assert export(tmp_path / "card.yaml", tmp_path / "out", "--format", "meta") == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["model.pt", "model_card.yaml"]
    assert yaml.safe_load((tmp_path / "out" / "model_card.yaml").read_text())["model_family"] == "base_lcm"
    assert equal(load_model(tmp_path / "out"), model)


def test_positions_that_meta_counts_in_another_way_are_refused(
    meta_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rule, code in (("document", 2), ("meta_compatible", 0)):
        card = yaml.safe_load((meta_run / "model_card.yaml").read_text())
        card["model_config"]["denoiser"]["pos_embedding_style"] = "rope"
        card["model_config"]["query_positions"] = rule
        (meta_run / "model_card.yaml").write_text(yaml.safe_dump(card))
        assert export(meta_run, tmp_path / rule, "--format", "meta") == code
    assert "`query_positions: document` counts positions in another way than Meta" in capsys.readouterr().err
    exported = yaml.safe_load((tmp_path / "meta_compatible" / "model_card.yaml").read_text())
    assert "query_positions" not in exported["model_config"] and not (tmp_path / "document").exists()


@pytest.mark.parametrize("norm_weights", [False, True])
def test_the_published_layout_of_pre1_comes_back_whole(
    tmp_path: Path, norm_weights: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pre1(tmp_path / "run", denoiser_norm_weights=norm_weights, denoiser_dropout_p=0.25, num_steps=30)
    model = load_model(tmp_path / "run")
    assert export(tmp_path / "run", tmp_path / "out", "--format", "huggingface") == 0
    out = capsys.readouterr().out
    assert "what it computes is not this model's" in out and "normalizer.center" in out
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.keys() == PUBLISHED.keys()
    assert (config["d_latent"], config["denoiser_iterations_pretrain"], config["dropout_denoiser"]) == (6, 30, 0.25)
    loaded = load_model(tmp_path / "out")
    assert equal(loaded, model) and loaded.config == model.config  # type: ignore[attr-defined]
    assert torch.equal(denoised(loaded), denoised(model))


@pytest.mark.parametrize("revision", ["documented", "final"])
def test_without_statistics_the_tensors_are_exactly_those_of_the_published_layout(
    tmp_path: Path, revision: str
) -> None:
    write_published(tmp_path / "lexa", revision)
    assert export(tmp_path / "lexa", tmp_path / "out", "--format", "huggingface") == 0
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("lexa", "out"))
    assert before.keys() == after.keys()
    schedule = "alpha_bar_schedule"  # the family's own
    assert all(torch.equal(value, after[name]) for name, value in before.items() if name != schedule)
    assert after[schedule].shape == (101,)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"linear_context": 2}, "no place for `linear_context`: 2; it means 0"),
        ({"output_form": "residual"}, "no place for `output_form`: 'residual'; it means 'direct'"),
        ({"rope_theta": 500.0}, "no place for `rope_theta`"),
    ],
)
def test_what_the_published_layout_cannot_say_is_refused_by_name(
    tmp_path: Path, fields: dict[str, object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pre1(tmp_path / "run", **fields)
    assert export(tmp_path / "run", tmp_path / "out", "--format", "huggingface") == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert export(tmp_path / "run", tmp_path / "out") == 0
    assert equal(load_model(tmp_path / "out"), load_model(tmp_path / "run"))
    assert yaml.safe_load((tmp_path / "out" / "card.yaml").read_text())["trained_steps"] == 7


def test_files_are_replaced_only_when_asked(meta_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "card.yaml").write_text("mine")
    (out / "notes.txt").write_text("mine too")
    assert export(meta_run, out) == 2
    assert "holds card.yaml already" in capsys.readouterr().err
    assert (out / "card.yaml").read_text() == "mine" and not (out / "model.safetensors").exists()
    assert export(meta_run, out, "--overwrite") == 0
    assert sorted(file.name for file in out.iterdir()) == ["card.yaml", "model.safetensors", "notes.txt"]
    assert equal(load_model(out), meta_model())
    assert export(meta_run, out / "notes.txt") == 2
    assert "OUT must be a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--format", "mta"], 'Did you mean "meta"'),
        (["--dtype", "float8"], "Known: bfloat16, float16, float32"),
        (
            ["--format", "huggingface"],
            "this model is of two_tower_diffusion_lcm. It can be written as: safetensors, meta.",
        ),
    ],
)
def test_a_fault_names_the_mend_and_writes_nothing(
    meta_run: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(meta_run, tmp_path / "out", *words) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out").exists()
