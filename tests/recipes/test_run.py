"""Training by a recipe, through fairseq2's machinery, on a dataset of a few kilobytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.nn.modules.module import register_module_forward_hook

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.resolve import find_in_folder, resolve_card
from lexalcm.checkpoints.special_concepts import SPECIAL_FILE, special_concepts_of
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import ConfigError, DataError, LexalcmError
from lexalcm.models.interface import TwoTowerModel
from lexalcm.recipes.curves import read_metrics
from lexalcm.recipes.run import run_training


def train(folder: Path, overrides: list[str], **more: Any) -> int:
    return run_training("quickstart", folder, overrides=overrides, no_rich=True, **more)


def losses(folder: Path) -> list[float]:
    return [entry["Loss"] for entry in read_metrics(folder / "metrics" / "train.jsonl")]


@contextmanager
def types_of_outputs() -> Iterator[dict[str, set[torch.dtype]]]:
    """Notes what modules of each class return while it is open."""
    seen: dict[str, set[torch.dtype]] = {}

    def note(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            seen.setdefault(type(module).__name__, set()).add(output.dtype)

    with register_module_forward_hook(note):
        yield seen


def test_a_run_ends_with_a_model_that_loads_and_can_be_moved(tmp_path: Path, tiny_overrides: list[str]) -> None:
    assert train(tmp_path / "run", tiny_overrides) == 0
    assert len(losses(tmp_path / "run")) == 12
    (tmp_path / "run").rename(tmp_path / "moved")
    averaged = load_model(tmp_path / "moved")
    assert isinstance(averaged, TwoTowerModel) and not averaged.training
    raw = load_model(tmp_path / "moved" / "model" / "card.yaml")
    assert torch.equal(averaged.normalizer.scale, raw.normalizer.scale)  # type: ignore[attr-defined]
    assert not torch.equal(averaged.normalizer.scale, torch.ones(8))  # type: ignore[attr-defined]
    cards = list(yaml.safe_load_all((tmp_path / "moved" / "model" / "card.yaml").read_text()))
    assert [card["name"] for card in cards] == ["run", "run_raw"]
    assert not any(Path(card["checkpoint"]).is_absolute() for card in cards)
    valid = read_metrics(tmp_path / "moved" / "metrics" / "valid.jsonl")[-1]
    assert {"Loss", "One-pass Cosine", "Retrieval@1 (unseen)", "Retrieval@10 (unseen)", "Energy Score"} <= valid.keys()


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, tiny_overrides: list[str]) -> None:
    more = [*tiny_overrides, "objective.config.noise_draws=2", "trainer.grad_accumulation.num_batches=2"]
    train(tmp_path / "whole", more)
    # Begun as a shorter run: the schedule of the longer one is followed from where it stopped.
    train(
        tmp_path / "parts",
        [*more, "regime.num_steps=8", "lr_scheduler.config.warmup_share=0", "lr_scheduler.config.final_scale=1"],
    )
    flat = ["lr_scheduler.config.warmup_share=0", "lr_scheduler.config.final_scale=1"]
    train(tmp_path / "flat", [*more, *flat])
    train(tmp_path / "parts", [*more, *flat])
    assert losses(tmp_path / "parts") == losses(tmp_path / "flat")
    first, second = (load_model(tmp_path / name).state_dict() for name in ("parts", "flat"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert losses(tmp_path / "whole") != losses(tmp_path / "flat")


def test_a_finished_run_says_so_and_does_nothing(
    tmp_path: Path, tiny_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", tiny_overrides)
    before = (tmp_path / "run" / "metrics" / "train.jsonl").read_bytes()
    assert train(tmp_path / "run", tiny_overrides) == 0
    assert "is finished" in capsys.readouterr().out
    assert (tmp_path / "run" / "metrics" / "train.jsonl").read_bytes() == before


def test_another_recipe_in_the_same_folder_is_refused_by_field(tmp_path: Path, tiny_overrides: list[str]) -> None:
    train(tmp_path / "run", tiny_overrides)
    with pytest.raises(ConfigError, match=r"`optimizer\.config\.lr` was 0\.003, now 0\.1"):
        train(tmp_path / "run", [*tiny_overrides, "optimizer.config.lr=0.1", "regime.num_steps=20"])


def test_the_best_checkpoint_becomes_the_model(tmp_path: Path, tiny_overrides: list[str]) -> None:
    best = ["regime.score_metric=retrieval_at_10_unseen", "regime.keep_best_n_checkpoints=1"]
    train(tmp_path / "run", [*tiny_overrides, *best])
    scores = {
        int(f.stem.removeprefix("step_")): float(f.read_text()) for f in (tmp_path / "run/checkpoints/scores").iterdir()
    }
    card = next(iter(yaml.safe_load_all((tmp_path / "run" / "model" / "card.yaml").read_text())))
    assert scores[card["trained_steps"]] == max(scores.values())


def test_special_concepts_around_documents_go_with_the_model(tmp_path: Path, tiny_overrides: list[str]) -> None:
    vectors = {name: torch.randn(8) for name in ("start", "end", "padding")}
    save_file(vectors, tmp_path / "special.safetensors")
    reading = {"special_concepts": tmp_path / "special.safetensors", "prefix": "start", "suffix": "end"}
    named = [f"dataset.reading.{key}={value}" for key, value in reading.items()]
    assert train(tmp_path / "run", [*tiny_overrides, "regime.num_steps=4", *named]) == 0
    (tmp_path / "special.safetensors").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    cards = list(yaml.safe_load_all((tmp_path / "moved" / "model" / "card.yaml").read_text()))
    expected = {"file": SPECIAL_FILE, "prefix": "start", "suffix": "end"}
    assert [card["special_concepts"] for card in cards] == [expected] * 2
    for card in (resolve_card(tmp_path / "moved"), find_in_folder(tmp_path / "moved" / "checkpoints").cards[0]):
        special = special_concepts_of(card, 8)
        assert special is not None and (special.prefix, special.suffix) == ("start", "end")
        assert special.vectors.keys() == vectors.keys()
        assert all(torch.equal(special.vectors[name], vector) for name, vector in vectors.items())


def test_a_run_without_special_concepts_has_a_card_without_them(tmp_path: Path, tiny_overrides: list[str]) -> None:
    assert train(tmp_path / "run", [*tiny_overrides, "regime.num_steps=4"]) == 0
    assert special_concepts_of(resolve_card(tmp_path / "run")) is None
    assert not (tmp_path / "run" / SPECIAL_FILE).exists()


def test_held_out_rows_are_validated_on_and_never_trained_on(tmp_path: Path, tiny_overrides: list[str]) -> None:
    assert train(tmp_path / "run", [*tiny_overrides, "dataset.hold_out_every=4", "dataset.valid_split=null"]) == 0
    state = torch.load(tmp_path / "run/checkpoints/step_12/data_reader/dp_00.pt", weights_only=True)
    assert state["counts"]["documents"] > 0
    assert read_metrics(tmp_path / "run" / "metrics" / "valid.jsonl")


@pytest.mark.parametrize("pack", ["true", "false"])
def test_the_context_can_be_withheld_as_meta_does(tmp_path: Path, tiny_overrides: list[str], pack: str) -> None:
    rule = "objective.config.guidance_drop_rule=meta_compatible"
    more = [rule, "regime.num_steps=2", f"dataset.reading.pack={pack}"]
    assert train(tmp_path / "run", [*tiny_overrides, *more]) == 0


CARDS = """
name: small
model_family: lexalcm
model_arch: pre1_tiny
model_config: {concept_dim: 8, model_dim: 16, num_heads: 2, ffn_dim: 32, timestep_dim: 8, schedule: {num_steps: 40}}
---
name: no_model
objective_family: lcm_objective
---
name: of_nobody
model_family: nobodys
"""


def test_a_card_without_weights_names_what_to_train(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.yaml").write_text(CARDS)
    monkeypatch.setenv("FAIRSEQ2_ASSET_DIR", str(tmp_path / "cards"))
    overrides = [o for o in tiny_overrides if not o.startswith("model.")]
    own = "model.config_overrides={num_denoiser_layers: 3, schedule: {kind: linear}}"
    assert train(tmp_path / "run", [*overrides, "regime.num_steps=4", "model.name=small", own]) == 0
    config = load_model(tmp_path / "run").config  # type: ignore[attr-defined]
    assert (config.model_dim, config.num_context_layers, config.num_denoiser_layers) == (16, 2, 3)
    assert (config.schedule.num_steps, config.schedule.kind) == (40, "linear")
    for name, told in (("no_model", "describes no model"), ("of_nobody", "nobodys, which is not known")):
        with pytest.raises(LexalcmError, match=told):
            train(tmp_path / "other", [*overrides, f"model.name={name}"])


def test_skipped_documents_are_in_the_metrics_by_kind(tmp_path: Path, tiny_overrides: list[str]) -> None:
    for split in ("train", "validation"):
        documents = [NewDocument(["a"] * 4, np.random.default_rng(i).normal(size=(4, 8))) for i in range(20)]
        documents[3].concepts[1] = np.nan
        write_documents(tmp_path / "data" / f"split={split}" / "p.parquet", documents)
    overrides = [o for o in tiny_overrides if not o.startswith("dataset.path=")]
    skip = [f"dataset.path={tmp_path / 'data'}", "dataset.config_overrides={on_bad_rows: skip}"]
    assert train(tmp_path / "run", [*overrides, *skip, "regime.num_steps=6"]) == 0
    last = read_metrics(tmp_path / "run" / "metrics" / "train.jsonl")[-1]
    assert last["Bad Rows (not finite)"] >= 1
    assert "Bad Rows (null vector)" not in last


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon", "lcm_adamw"])
def test_every_optimizer_trains_and_leaves_inert_parameters_alone(
    tmp_path: Path, tiny_overrides: list[str], optimizer: str
) -> None:
    train(tmp_path / "run", [*tiny_overrides, f"optimizer.name={optimizer}", "regime.num_steps=4", "ema.decay=null"])
    trained = load_model(tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in trained.parameters())


def test_mixed_precision_reaches_the_towers_and_spares_what_must_stay_precise(
    tmp_path: Path, tiny_overrides: list[str]
) -> None:
    with types_of_outputs() as seen:
        train(tmp_path / "run", [*tiny_overrides, "trainer.mixed_precision.mode=auto", "regime.num_steps=4"])
    for half in ("CausalSelfAttention", "OwnPositionAttention", "SwiGLU"):
        assert seen[half] == {torch.bfloat16}, half
    # Without a context it attends to nothing, and gives zeros of its input's type.
    assert torch.bfloat16 in seen["PastCrossAttention"]
    for precise in ("Pre1Model", "PreciseLayerNorm", "TimestepEncoder"):
        assert seen[precise] == {torch.float32}, precise
    for parameter in load_model(tmp_path / "run").parameters():
        assert parameter.dtype == torch.float32


def test_a_compiled_run_learns_the_same(tmp_path: Path, tiny_overrides: list[str]) -> None:
    short = [*tiny_overrides, "regime.num_steps=4", "model.config_overrides.denoiser_dropout_p=0"]
    compiled = ["model.compile=true", "model.compile_options.backend=aot_eager"]
    for folder, overrides in (("plain", short), ("compiled", [*short, *compiled])):
        train(tmp_path / folder, overrides)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    assert load_model(tmp_path / "compiled").state_dict().keys() == load_model(tmp_path / "plain").state_dict().keys()


def test_a_dry_run_writes_nothing(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(tmp_path / "run", tiny_overrides, dry_run=True) == 0
    assert not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    for told in ("parameters", "step 1", "step 2", "gradient norm", "validation", "memory", "documents"):
        assert told in out
    # 48 documents of 2 to 12 concepts in batches of 128, from the lengths of the first two batches.
    epoch = re.search(r"epoch  about (\d+) step\(s\) for 48 documents", out)
    assert epoch is not None and 2 <= int(epoch[1]) <= 4


@pytest.mark.parametrize(("capability", "precision"), [("AVX2", "float32"), ("AVX512", "bfloat16")])
def test_a_dry_run_does_not_imitate_half_precision(
    tmp_path: Path,
    tiny_overrides: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    capability: str,
    precision: str,
) -> None:
    # On a CPU without instructions for it, one step of the full-size model had not ended after nine minutes.
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with types_of_outputs() as seen:
        train(tmp_path / "run", [*tiny_overrides, "trainer.mixed_precision.mode=auto"], dry_run=True)
    assert seen["SwiGLU"] == {getattr(torch, precision)}
    assert ("precision  float32" in capsys.readouterr().out) == (precision == "float32")


def test_checkpoints_hold_nothing_that_could_run(tmp_path: Path, tiny_overrides: list[str]) -> None:
    train(tmp_path / "run", [*tiny_overrides, "regime.num_steps=4"])
    files = list((tmp_path / "run" / "checkpoints").rglob("*.pt"))
    assert len(files) == 4
    for file in files:
        torch.load(file, weights_only=True)


def test_the_environment_is_not_logged(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECRET_TOKEN", "MASTER_PASSWORD", "LEXALCM_API_KEY", "NCCL_SECRET", "TORCH_AUTH"):
        monkeypatch.setenv(name, "hunter2hunter2")
    monkeypatch.setenv("TORCH_HUB", "http://me:hunter2hunter2@hub")
    train(tmp_path / "run", [*tiny_overrides, "regime.num_steps=4"])
    log = (tmp_path / "run" / "logs" / "rank_0.log").read_text()
    assert "hunter2hunter2" not in log and "TORCH_HUB" in log


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("regime.num_step=5", r'no field `num_step`.*"num_steps"'),
        ("model.arch=pre1_40m", r"`model\.arch`.*pre1_400m"),
        ("model.config_overrides={model_dmi: 3}", r"`model\.config_overrides` has no field `model_dmi`"),
        ("model={family: sonar_normalizer, compile: true}", r"`model\.compile`: the family sonar_normalizer does not"),
        ("optimizer.name=adamx", r'`optimizer\.name`.*"adamw"'),
        ("optimizer.config.lrr=1", r"`optimizer\.config` has no field `lrr`"),
        ("objective.name=pre1_objectiv", r"pre1_objective"),
        ("objective.name=pre1_sampler", r"card pre1_sampler describes no objective"),
        ("objective={name: null, family: lcm_objectiv}", r'`objective\.family`.*"lcm_objective"'),
        ("objective.family=other", r"`objective\.family` is other, but the card high_noise_objective is of .* lcm_obj"),
        ("objective.config.noise_draw=2", r"`objective\.config` has no field `noise_draw`"),
        ("regime.num_data_epochs=3", r"`regime\.num_data_epochs` is not supported"),
        ("trainer.mixed_precision.mode=static", r"`trainer\.mixed_precision\.mode: static`"),
        ("normalizer.fit=null", r"No normalizer is named"),
        ("dataset.path=nowhere", r"nowhere does not exist"),
        ("dataset.train_split=trian", r"no files for the split `trian`.*train"),
        ("model.config_overrides.concept_dim=9", r"concept_dim"),
        ("model.config_overrides.prediction_type=epsilon", r"zero terminal SNR"),
        ("dataset.reading.concepts_per_batch=3.5", r"must be a whole number"),
        ("ema.decay=1.5", r"`ema\.decay`"),
        ("regime.save_model_only=true", r"`regime\.save_model_only` is not supported"),
        ("trainer.mixed_precision={mode: auto, dtype: torch.float16}", "Training in float16 is not supported"),
        ("model.dtype=torch.float16", "Training in float16 is not supported"),
    ],
)
def test_a_mistake_is_named_with_its_field(tmp_path: Path, tiny_overrides: list[str], override: str, told: str) -> None:
    with pytest.raises(LexalcmError, match=f"(?s){told}") as caught:
        train(tmp_path / "run", [*tiny_overrides, override])
    assert len(str(caught.value).splitlines()) <= 4


def test_dumped_config_is_yaml_with_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_training("pre1", dump_config=True, no_rich=True) == 0
    dumped = yaml.safe_load(capsys.readouterr().out)
    assert {
        "model",
        "normalizer",
        "dataset",
        "objective",
        "trainer",
        "ema",
        "optimizer",
        "regime",
        "validation",
    } <= dumped.keys()


def test_shipped_recipes_name_only_real_fields_and_are_found_by_name() -> None:
    for name in ("pre1", "quickstart"):
        with pytest.raises((ConfigError, DataError)):  # what is missing is the data, nothing else
            run_training(name, overrides=["dataset.path=does_not_exist"], dry_run=True, no_rich=True)
    with pytest.raises(ConfigError, match='"pre1"'):
        run_training("prel", dry_run=True, no_rich=True)


def test_metrics_repeat_no_step_after_a_resume(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(
        "".join(json.dumps({"Step": s, "Loss": v}) + "\n" for s, v in ((1, 3.0), (2, 2.0), (2, 1.5), (3, 1.0)))
    )
    assert [(e["Step"], e["Loss"]) for e in read_metrics(file)] == [(1, 3.0), (2, 1.5), (3, 1.0)]
