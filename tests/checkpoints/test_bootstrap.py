"""A fresh model is written as training from scratch begins with it, the same bytes for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fairseq2.assets import AssetCard
from safetensors.torch import load_file

from lexalcm.checkpoints.bootstrap import (
    FreshModel,
    card_of_arch,
    check_free,
    plan_fresh_model,
    write_fresh_model,
)
from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.checkpoints.special_concepts import SPECIAL_FILE, SpecialConceptsOfModel, special_concepts_of
from lexalcm.errors import CardError, ConfigError, LexalcmError
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.normalizer.statistics import NormalizerStatistics
from tests.checkpoints.tiny_models import META_CONFIG, write_normalizer

SIZES = {"model_dim": 8, "num_heads": 2, "ffn_dim": 10, "timestep_dim": 4}
TINY = {"concept_dim": 6, "num_context_layers": 1, "num_denoiser_layers": 1, **SIZES}


def plan(source: str | Path = "pre1_400m", **fields: Any) -> FreshModel:
    return plan_fresh_model(resolve_card(source), fields or TINY)


def contents(folder: Path) -> Mapping[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_fresh_model_loads_wherever_its_folder_goes(tmp_path: Path) -> None:
    fresh = plan()
    write_fresh_model(fresh, tmp_path / "out", name="mine", seed=3)
    (tmp_path / "out").rename(tmp_path / "moved")
    loaded = load_model(tmp_path / "moved")
    assert isinstance(loaded, TwoTowerModel) and loaded.concept_dim == 6
    assert sum(p.numel() for p in loaded.parameters()) == fresh.num_parameters
    assert fresh.num_bytes(torch.float32) == sum(tensor.nbytes for tensor in loaded.state_dict().values())
    card = yaml.safe_load((tmp_path / "moved" / "card.yaml").read_text())
    assert (card["name"], card["trained_steps"], card["seed"]) == ("mine", 0, 3)
    assert card["model_config"].items() >= TINY.items()


def test_lexalcm_pre1_has_its_published_number_of_parameters() -> None:
    fresh = plan_fresh_model(resolve_card("pre1_400m"), {})
    assert fresh.num_parameters == 394_900_736
    assert next(fresh.shell.parameters()).is_meta  # nothing of that size is made to know it


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_weights(tmp_path: Path) -> None:
    special = SpecialConceptsOfModel(
        {"a": torch.ones(6), "b": torch.zeros(6)}, prefix="a", suffix="b", facts={"a": {"role": "a"}}
    )
    state = torch.get_rng_state()
    for name, seed in (("1", 5), ("2", 5), ("3", 6)):
        write_fresh_model(plan(), tmp_path / name, name="x", seed=seed, special=special)
    first, second, other = (contents(tmp_path / name) for name in "123")
    assert first == second and first.keys() == {"model.safetensors", "card.yaml", SPECIAL_FILE}
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "13")
    assert len([name for name in a if not torch.equal(a[name], b[name])]) > 10
    assert torch.equal(torch.get_rng_state(), state)  # whoever draws next in this process draws the same


def test_parameters_are_written_in_the_type_asked_for_and_statistics_in_theirs(tmp_path: Path) -> None:
    statistics = NormalizerStatistics(center=torch.arange(6.0), scale=torch.full((6,), 0.3))
    for name, dtype in (("full", torch.float32), ("half", torch.bfloat16)):
        write_fresh_model(plan(), tmp_path / name, name=name, dtype=dtype, statistics=statistics)
    full, half = (load_file(tmp_path / name / "model.safetensors") for name in ("full", "half"))
    assert torch.equal(half["normalizer.scale"], statistics.scale) and half["normalizer.scale"].dtype == torch.float32
    assert torch.equal(full["normalizer.center"], statistics.center)
    parameters = {name for name, _ in plan().shell.named_parameters()}
    assert all(torch.equal(half[name], full[name].bfloat16()) for name in parameters)
    assert plan().num_bytes(torch.bfloat16) == sum(tensor.nbytes for tensor in half.values())


def test_special_concepts_go_into_the_folder_and_the_card(tmp_path: Path) -> None:
    vectors = {"begin": torch.ones(6), "stop": torch.arange(6.0)}
    facts = {"stop": {"role": "stop", "sentence": "It ends."}}
    special = SpecialConceptsOfModel(vectors, prefix="begin", suffix="stop", facts=facts)
    write_fresh_model(plan(), tmp_path / "out", name="x", special=special)
    found = special_concepts_of(resolve_card(tmp_path / "out"), 6)
    assert found is not None and (found.prefix, found.suffix, found.facts) == ("begin", "stop", facts)
    assert found.end is not None and torch.equal(found.end, vectors["stop"])


def test_metas_family_gets_the_normalizer_that_its_card_names(tmp_path: Path) -> None:
    write_normalizer(tmp_path)
    card = {"name": "m", "model_family": "two_tower_diffusion_lcm", "model_config": META_CONFIG}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(card))
    fresh = plan(tmp_path / "m.yaml", **{"noise_scheduler.num_diffusion_train_steps": 7})
    write_fresh_model(fresh, tmp_path / "out", name="x")
    (tmp_path / "house_normalizer.yaml").unlink()  # the new card needs no other
    loaded = load_model(tmp_path / "out")
    assert isinstance(loaded, TwoTowerModel) and loaded.concept_dim == 6
    config = yaml.safe_load((tmp_path / "out" / "card.yaml").read_text())["model_config"]
    assert config["noise_scheduler"]["num_diffusion_train_steps"] == 7
    assert config["max_seq_len"] == 16  # what is not overridden is the card's


def test_a_card_whose_fields_have_another_name_is_overridden_too(tmp_path: Path) -> None:
    card = {"name": "m", "model_family": "lexalcm", "model_config_overrides": {**TINY, "ffn_dim": 12}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(card))
    config = plan(tmp_path / "m.yaml", ffn_dim=14).described.config
    assert (config.ffn_dim, config.model_dim) == (14, 8)


def test_an_architecture_needs_no_card() -> None:
    card = card_of_arch("pre1_tiny")
    assert card is not None and card.field("model_family").value == "lexalcm"
    assert card_of_arch("pre1_huge") is None and card_of_arch("base_fft") is None  # the latter normalizes


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"concept_dimm": 6}, '`--config`: Card pre1_tiny .*`concept_dimm`. Did you mean "concept_dim"'),
        ({"schedule.knd": "linear"}, 'Did you mean "kind"'),
        ({"ffn_dim": 3.5}, "`model_config.ffn_dim` must be a whole number, but is 3.5"),
        ({"model_dim": 6}, "`model_dim` .6. must be a multiple of twice `num_heads`"),
        ({"schedule.kind": "linear", "schedule": {"num_steps": 9}}, "both `schedule` and `schedule.kind`"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named(overrides: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_fresh_model(resolve_card("pre1_tiny"), overrides)


def test_a_model_that_cannot_be_trained_is_refused() -> None:
    normalizer = AssetCard("n", {"model_family": "sonar_normalizer", "model_arch": "base"})
    with pytest.raises(CardError, match="family sonar_normalizer, which cannot be trained"):
        plan_fresh_model(normalizer, {})


def test_what_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = plan()
    with monkeypatch.context() as patch:
        patch.setattr("lexalcm.memory.available_memory", lambda device: 1000)
        with pytest.raises(ConfigError, match="making and writing the model needs .* of memory on cpu, but only"):
            write_fresh_model(fresh, tmp_path / "out", name="x")
    disk = type("usage", (), {"free": 1000})
    monkeypatch.setattr("lexalcm.checkpoints.bootstrap.shutil.disk_usage", lambda place: disk)
    with pytest.raises(ConfigError, match="the disk of .*out has 0.0 MiB left"):
        write_fresh_model(fresh, tmp_path / "out", name="x")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    check_free(tmp_path, overwrite=False)
    (tmp_path / "card.yaml").write_text("mine")
    with pytest.raises(LexalcmError, match="holds card.yaml already. .*--overwrite"):
        check_free(tmp_path, overwrite=False)
    check_free(tmp_path, overwrite=True)
    with pytest.raises(LexalcmError, match="OUT must be a folder"):
        check_free(tmp_path / "card.yaml", overwrite=True)
