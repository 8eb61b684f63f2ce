"""``fairseq2 lcm bootstrap`` writes a checkpoint that trains, generates and loads as any other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import Module

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.normalizer_file import save_normalizer_file
from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.checkpoints.special_concepts import special_concepts_of
from lexalcm.cli.main import main
from lexalcm.data.special_concepts import write_special_concepts
from lexalcm.errors import ConfigError
from lexalcm.models.normalizer.statistics import NormalizerStatistics
from lexalcm.recipes.run import run_training
from lexalcm.recipes.train import LcmTrainRecipe
from tests.cli.test_special_concepts import special_concepts
from tests.conftest import TINY_RUN

TINY = ["concept_dim=8", "model_dim=16", "num_context_layers=1", "num_denoiser_layers=2", "num_heads=2"]
SIZES = ["--config", *TINY, "ffn_dim=32", "timestep_dim=8"]


def bootstrap(*words: object) -> int:
    return main(["lcm", "bootstrap", *map(str, words)])


@pytest.fixture
def normalizer(tmp_path: Path) -> Path:
    statistics = NormalizerStatistics(center=torch.arange(8.0), scale=torch.full((8,), 0.5))
    save_normalizer_file(tmp_path / "n.safetensors", statistics, {"method": "robust"})
    return tmp_path / "n.safetensors"


@pytest.fixture
def special(tmp_path: Path) -> Path:
    file = tmp_path / "s.safetensors"
    assert special_concepts(file, "--encoder", "stand_in", "--dim", 8) == 0
    return file


def test_the_weights_are_those_that_a_recipe_with_the_seed_starts_with(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: dict[str, Tensor] = {}

    def note(self: LcmTrainRecipe, context: Any, model: Module, newly_initialized: bool) -> Module:
        started.update({name: value.clone() for name, value in model.named_parameters()})
        return setup(self, context, model, newly_initialized)

    setup = LcmTrainRecipe.setup_model
    monkeypatch.setattr(LcmTrainRecipe, "setup_model", note)
    run_training("quickstart", overrides=[*tiny_overrides, "common.seed=7"], no_rich=True, dry_run=True)
    assert bootstrap("pre1", tmp_path / "out", *SIZES, "--seed", 7) == 0
    written = dict(load_model(tmp_path / "out").named_parameters())
    assert started.keys() == written.keys()
    assert all(torch.equal(started[name], value) for name, value in written.items())


def test_what_was_written_is_said(tmp_path: Path, normalizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--normalizer", normalizer, "--dtype", "bfloat16"]
    assert bootstrap("quickstart", tmp_path / "my model", *SIZES, *words) == 0
    out, err = capsys.readouterr()
    model = load_model(tmp_path / "my model")
    num_parameters = sum(p.numel() for p in model.parameters())
    num_bytes = 2 * num_parameters + sum(buffer.nbytes for buffer in model.state_dict().values()) - 4 * num_parameters
    assert f"lexalcm, {num_parameters:,} parameters, bfloat16, concepts of 8 dimensions" in out
    assert f"{num_bytes:,} bytes" in out and "the card my_model" in out and str(normalizer) in out
    assert "identity" not in out + err
    assert yaml.safe_load((tmp_path / "my model" / "card.yaml").read_text())["name"] == "my_model"


def test_a_model_without_a_normalizer_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap("pre1_tiny", tmp_path / "out", "--config", "concept_dim=8", "--name", "house_1") == 0
    out, err = capsys.readouterr()
    assert "normalizer  identity" in out and "a run that starts from it fits one" in err
    assert yaml.safe_load((tmp_path / "out" / "card.yaml").read_text())["name"] == "house_1"


def test_training_goes_on_from_it_with_its_normalizer(tmp_path: Path, tiny_corpus: Path, normalizer: Path) -> None:
    assert bootstrap("pre1", tmp_path / "out", *SIZES, "--normalizer", normalizer) == 0
    overrides = [o for o in TINY_RUN if not o.startswith("model.")] + [f"dataset.path={tiny_corpus}"]
    overrides += ["regime.num_steps=2", "regime.validate_every_n_steps=2", "regime.checkpoint_every_n_steps=2"]
    overrides += [f"model.name={tmp_path / 'out'}", "trainer.mixed_precision.mode=off"]
    assert run_training("pre1", tmp_path / "run", overrides=overrides, no_rich=True) == 0
    fresh, trained = (load_model(tmp_path / name) for name in ("out", "run"))
    for model in (fresh, trained):
        assert torch.equal(model.get_buffer("normalizer.center"), torch.arange(8.0))
    moved = [not torch.equal(a, b) for a, b in zip(fresh.parameters(), trained.parameters())]
    assert any(moved)


def test_training_from_a_model_without_a_normalizer_fits_one_or_is_refused(tmp_path: Path, tiny_corpus: Path) -> None:
    assert bootstrap("pre1", tmp_path / "out", *SIZES) == 0
    overrides = [o for o in TINY_RUN if not o.startswith("model.")] + [f"dataset.path={tiny_corpus}"]
    overrides += ["regime.num_steps=2", "regime.validate_every_n_steps=2", "regime.checkpoint_every_n_steps=2"]
    overrides += [f"model.name={tmp_path / 'out'}", "trainer.mixed_precision.mode=off"]
    with pytest.raises(ConfigError, match="No normalizer is named"):
        run_training("pre1", tmp_path / "refused", overrides=[*overrides, "normalizer.fit=null"], no_rich=True)
    assert run_training("pre1", tmp_path / "run", overrides=overrides, no_rich=True) == 0
    assert bool((load_model(tmp_path / "run").get_buffer("normalizer.scale") != 1).any())


def test_generate_takes_it_with_its_special_concepts(
    tmp_path: Path, special: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bootstrap("pre1", tmp_path / "out", *SIZES, "--special-concepts", special) == 0
    assert "14 concepts of" in (out := capsys.readouterr().out) and "prefix start_of_text, suffix end_of_text" in out
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "A river runs."}\n')
    words = ["--input", tmp_path / "p.jsonl", "--output", tmp_path / "o.parquet", "--max-sentences", 1]
    quick = ["--encoder", "stand_in", "--segmenter", "punctuation", "--decoder", "none", "--steps", 2]
    assert main(["lcm", "generate", *map(str, [tmp_path / "out", *words, *quick])]) == 0
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 1


def test_the_special_concepts_of_a_role_can_be_chosen(tmp_path: Path, special: Path) -> None:
    roles = ["--prefix", "start_of_text.jpn_Jpan", "--target-suffix", "end_of_text", "--suffix", "ai"]
    assert bootstrap("pre1", tmp_path / "a", *SIZES, "--special-concepts", special, *roles) == 0
    found = special_concepts_of(resolve_card(tmp_path / "a"), 8)
    assert found is not None
    assert (found.prefix, found.suffix, found.target_suffix) == ("start_of_text.jpn_Jpan", "ai", "end_of_text")
    # What stands behind a source is no end.
    words = ["--special-concepts", special, "--target-suffix", "end_of_text"]
    assert bootstrap("pre1", tmp_path / "b", *SIZES, *words) == 0
    assert (found := special_concepts_of(resolve_card(tmp_path / "b"), 8)) is not None and found.suffix is None


def test_a_folder_of_single_vectors_is_taken(tmp_path: Path) -> None:
    for name in ("Start", "End"):
        file = tmp_path / "vectors" / f"{name}.safetensors"
        write_special_concepts(file, {"embedding": np.full(8, len(name))}, {}, encoder={})
    words = ["--special-concepts", tmp_path / "vectors", "--prefix", "Start", "--suffix", "End"]
    assert bootstrap("pre1", tmp_path / "out", *SIZES, *words) == 0
    found = special_concepts_of(resolve_card(tmp_path / "out"), 8)
    assert found is not None and found.end is not None and found.end.tolist() == [3.0] * 8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pre2", "out"], 'Did you mean "pre1"'),
        (["base_lcm_finetune", "out"], "goes on from a trained model"),
        (["gone.yaml", "out"], "nothing is there"),
        (["pre1", "out", "--dtype", "int8"], "Known: bfloat16, float32"),
        (["pre1", "out", "--seed", "-1"], "`--seed` must be from 0"),
        (["pre1", "out", "--name", "a b"], "`--name` must consist of"),
        (["pre1", "out", "--config", "concept_dim"], "must be KEY=VALUE"),
        (["pre1", "out", "--config", "concept_dimm=8"], 'Did you mean "concept_dim"'),
        (["pre1", "out", "--prefix", "start_of_text"], "give --special-concepts too"),
        (["pre1", "out", "--special-concepts", "s.safetensors"], "is 8 wide, but the concepts .* are 1024 wide"),
        (["pre1", "out", *SIZES, "--special-concepts", "s.safetensors", "--prefix", "start"], "start_of_text"),
        (["pre1", "out", "--normalizer", "n.safetensors"], "fitted on concepts of 8 dimensions, but 1024"),
        (["pre1", "out", *SIZES, "--normalizer", "gone.safetensors"], "gone.safetensors` does not exist"),
        (["pre1", "s.safetensors"], "OUT must be a folder"),
    ],
)
def test_a_fault_names_the_mend_and_writes_nothing(
    words: list[str],
    told: str,
    tmp_path: Path,
    normalizer: Path,
    special: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert bootstrap(*words) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(told, error), error
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_there_is_replaced_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap("pre1", tmp_path / "out", *SIZES) == 0
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert bootstrap("pre1", tmp_path / "out", *SIZES, "--seed", 1) == 2
    assert "holds model.safetensors and card.yaml already" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert bootstrap("pre1", tmp_path / "out", *SIZES, "--seed", 1, "--overwrite") == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before
