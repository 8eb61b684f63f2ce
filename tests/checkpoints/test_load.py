"""What can be loaded by name, card file or folder; a wrong card or file ends in one error, never in a model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import lexalcm.memory
from lexalcm.checkpoints.consolidate import iter_model_state
from lexalcm.checkpoints.load import load_described, load_model
from lexalcm.errors import CardError, CheckpointError, ConfigError, LexalcmError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.interop import to_published
from tests.checkpoints.tiny_models import FIELDS, denoised, equal, meta_model, write_meta_step, write_normalizer


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


def test_parameters_get_the_type_asked_for_and_statistics_keep_theirs(tmp_path: Path) -> None:
    card = write_meta_step(tmp_path / "step_1", meta_model())
    write_normalizer(tmp_path / "step_1")
    model = load_model(card, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.sonar_normalizer.scale, meta_model().sonar_normalizer.scale)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ({"model_family": None}, r"card\.yaml\) describes no model: it has no `model_family`.*Families: .*lexalcm"),
        ({"model_family": None, "model_famly": "lexalcm"}, 'Did you mean "model_famly"'),
        ({"model_family": "lexalmc"}, r'`model_family` is lexalmc, .*"lexalcm"'),
        ({"model_arch": "pre1_40m", "model_config": None}, r'`model_arch`: "pre1_40m" .* Did you mean "pre1_400m"'),
        ({"checkpoint": "absent.safetensors"}, "absent.safetensors, which does not exist"),
        ({"checkpoint": "/not/here/absent.pt"}, "/not/here/absent.pt, which does not exist, nor does the end of that"),
        ({"checkpoint": None}, "without weights"),
        ({"checkpoint": 3}, "`checkpoint` must be a path or a URL, but is 3"),
        ({"checkpoint": "gopher://host/m.pt"}, "scheme gopher"),
        ({"base": "nobody"}, "nobody"),
        ({"checkpoint": "${env:HOME}/m.safetensors"}, "substitute"),
        ({"model_config": {**FIELDS, "ffn_dim": 32}}, r"ffn.* has the shape \[24\], but by Card mine .* is \[32\]"),
        (
            {"model_config": {**FIELDS, "concept_dim": 6}},
            r"m.safetensors: .*\[8\], but by Card mine .*card\.yaml\).* \[6\]",
        ),
        ({"model_config": {**FIELDS, "model_dim": 15}}, r"card\.yaml\): .*`model_dim` \(15\)"),
    ],
)
def test_a_wrong_card_is_named(tmp_path: Path, card: dict, told: str) -> None:
    pattern = told.replace("$", r"\$").replace("{", r"\{")
    with pytest.raises(LexalcmError, match=f"(?s){pattern}") as caught:
        load_model(write_model(tmp_path / "m", **card))
    assert len(str(caught.value).splitlines()) <= 3


def write_file(file: Path, kind: str) -> None:
    """Damages a good file of weights, or puts something else in its place."""
    state = load_file(file.parent / "m.safetensors")
    first = next(iter(state))
    changed: dict[str, Any] = {
        "key missing": {k: v for k, v in state.items() if k != first},
        "key too many": {**state, "surplus.weight": torch.zeros(1)},
        "whole numbers": {**state, first: state[first].long()},
        "no tensor": {**state, first: "text"},
        "class": {"model": state, "config": Namespace(lr=1)},
        "nothing": {},
    }
    if kind in changed:
        torch.save(changed[kind], file)
        return
    if file.suffix == ".pt":
        torch.save(state, file)
    else:
        save_file(state, file)
    content = {
        "truncated": file.read_bytes()[: int(file.stat().st_size * 0.9)],
        "html": b"<!DOCTYPE html><html>not found</html>",
        "empty": b"",
        "other kind": (file.parent / "m.safetensors").read_bytes(),
    }
    file.write_bytes(content[kind])


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("w.safetensors", "truncated", r"w.safetensors` \([\d,]+ bytes\) is damaged or cut short"),
        ("w.safetensors", "html", r"w.safetensors` \(37 bytes\) is not a safetensors file: it is a web page \(HTML\)"),
        ("w.safetensors", "empty", r"w.safetensors` \(0 bytes\) is not a safetensors file: it is empty"),
        ("w.pt", "truncated", r"w.pt` \([\d,]+ bytes\) is damaged or cut short"),
        ("w.pt", "html", r"w.pt` \(37 bytes\) is not a PyTorch file: it is a web page \(HTML\)"),
        ("w.pt", "empty", r"w.pt` \(0 bytes\) is not a PyTorch file: it is empty"),
        ("w.pt", "other kind", "w.pt.* is not a PyTorch file: it is a safetensors file"),
        ("w.pt", "class", "w.pt.* the class argparse.Namespace, which cannot be read without running code"),
        (
            "w.pt",
            "key missing",
            r"w.pt is not a checkpoint of the model that Card mine .*missing: \S+\nunexpected: none",
        ),
        ("w.pt", "key too many", "missing: none\nunexpected: surplus.weight"),
        ("w.pt", "whole numbers", "holds numbers of the type int64, but the model's are float32"),
        ("w.pt", "no tensor", "is not a `.*Tensor"),
        ("w.pt", "nothing", r"missing: .* and \d+ more\nunexpected: none"),
        ("w.ckpt", "empty", "w.ckpt` must end in one of .safetensors, .pt"),
    ],
)
def test_a_wrong_file_is_told_apart_with_its_path(tmp_path: Path, name: str, kind: str, told: str) -> None:
    card = write_model(tmp_path / "m", checkpoint=name)
    write_file(tmp_path / "m" / name, kind)
    with pytest.raises(CheckpointError, match=f"(?s){told}") as caught:
        load_model(card)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_card_cannot_ask_for_unsafe_reading(tmp_path: Path) -> None:
    card = write_model(tmp_path / "m", checkpoint="w.pt", restrict=False)
    write_file(tmp_path / "m" / "w.pt", "class")
    with pytest.raises(CheckpointError, match="argparse.Namespace"):
        load_model(card)


def test_files_of_old_pytorch_and_of_several_parts_load(tmp_path: Path) -> None:
    card = write_model(tmp_path / "m", checkpoint="old.pt")
    state = load_file(tmp_path / "m" / "m.safetensors")
    torch.save(state, tmp_path / "m" / "old.pt", _use_new_zipfile_serialization=False)
    expected = load_model(card)
    (tmp_path / "m" / "parts").mkdir()
    names = sorted(state)
    for number, part in enumerate((names[:5], names[5:]), start=1):
        save_file({n: state[n] for n in part}, tmp_path / "m" / "parts" / f"model-0000{number}-of-00002.safetensors")
    assert equal(load_model(write_model(tmp_path / "m", checkpoint="parts")), expected)


def test_a_sharded_run_that_is_still_training_loads_whole(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    state, step = load_file(tmp_path / "m" / "m.safetensors"), tmp_path / "run" / "checkpoints" / "step_4"
    shards = step / "model" / "pp_00" / "tp_00"
    shards.mkdir(parents=True)
    for rank in range(2):
        # FSDP cuts parameters, and leaves buffers whole on every rank.
        part = {n: v if n.startswith("normalizer") else v.chunk(2)[rank].clone() for n, v in state.items()}
        torch.save(part, shards / f"sdp_0{rank}.pt")
    trained = {"name": "last_checkpoint", "model_family": "lexalcm", "model_config": FIELDS}
    (tmp_path / "run" / "checkpoints" / "model.yaml").write_text(yaml.safe_dump(trained))
    for place in (tmp_path / "run", tmp_path / "run" / "checkpoints"):
        loaded = load_described(place)
        assert equal(loaded.model, load_model(tmp_path / "m"))
        assert loaded.described.card.name == "run_step_4"


def test_a_normalizer_loads_from_metas_file(tmp_path: Path) -> None:
    loaded = load_model(write_normalizer(tmp_path))
    assert torch.equal(loaded.scale, torch.ones(6))  # type: ignore[attr-defined]


def test_outputs_of_a_loaded_model_are_those_of_the_saved_one(tmp_path: Path) -> None:
    write_meta_step(tmp_path / "step_1", meta_model())
    write_normalizer(tmp_path / "step_1")
    assert torch.equal(denoised(load_model(tmp_path / "step_1")), denoised(meta_model()))


def test_what_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CardError, match='"pre1_400m"'):
        load_model("pre1_40m")
    with pytest.raises(CardError, match="neither a card file nor a folder"):
        load_model(str(tmp_path / "absent.yaml"))
    with pytest.raises(CheckpointError, match="holds no model"):
        load_model(tmp_path)
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(CardError, match="not valid YAML"):
        load_model(tmp_path / "broken.yaml")


@pytest.mark.parametrize("arch", ["pre1_400m", "two_tower_diffusion_lcm_1_6B", "toy_base_lcm"])
def test_an_architecture_without_weights_says_so_and_what_to_do(arch: str) -> None:
    with pytest.raises(CardError, match=rf"none are published.*\n.*model\.name={arch}.*fairseq2 lcm import PATH"):
        load_model(arch)


def test_what_a_model_was_trained_with_is_overridden_before_it_is_built_and_each_change_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = write_model(tmp_path / "m")
    as_trained = load_model(card)
    assert "overriding" not in caplog.text
    changed = load_model(card, overrides={"schedule.kind": "linear", "prediction_type": "epsilon", "ffn_dim": 24})
    assert (changed.config.schedule.kind, changed.config.prediction_type) == ("linear", "epsilon")  # type: ignore
    assert not torch.equal(changed.schedule.table, as_trained.schedule.table)  # type: ignore[attr-defined]
    assert equal(changed, as_trained)
    assert "`schedule.kind` cosine -> linear, `prediction_type` sample -> epsilon.\n" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        ({"schedule.kidn": "linear"}, ConfigError, 'card.yaml.*, overridden: .*schedule` has no field `kidn`.*"kind"'),
        ({"predicton_type": "epsilon"}, ConfigError, 'has no field `predicton_type`.*"prediction_type"'),
        ({"schedule": "linear"}, ConfigError, "schedule` must be a mapping of fields, but is 'linear'"),
        ({"schedule.num_steps": 9.5}, ConfigError, "schedule.num_steps` must be a whole number, but is 9.5"),
        ({"schedule.num_steps": "many"}, ConfigError, "schedule.num_steps` must be a whole number, but is 'many'"),
        ({"schedule.num_steps": 0}, ConfigError, "with schedule.num_steps overridden: .*at least 1, but is 0"),
        ({"schedule.kind": "linaer"}, ConfigError, "`schedule.kind`: .*linaer"),
        ({"schedule.": 3}, ConfigError, "has no field ``"),
        ({"_del_": ["ffn_dim"]}, ConfigError, "_del_"),
        ({"schedule.kind": "linear", "schedule": {}}, ConfigError, "`schedule` and `schedule.kind` .* both overridden"),
        ({"ffn_dim": 32}, CheckpointError, "ffn.* has the shape .* by Card mine .* with ffn_dim overridden .* is"),
    ],
)
def test_an_override_that_cannot_be_honoured_is_told_apart(
    tmp_path: Path, overrides: dict[str, Any], error: type[LexalcmError], told: str
) -> None:
    with pytest.raises(error, match=f"(?s){told}") as caught:
        load_model(write_model(tmp_path / "m"), overrides=overrides)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_model_that_the_device_has_no_room_for_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = write_model(tmp_path / "m")
    needed = sum(value.nbytes for value in load_model(card).state_dict().values())
    monkeypatch.setattr(lexalcm.memory, "available_memory", lambda device: needed - 100)
    with pytest.raises(ConfigError, match=r"Card mine .*: the model needs .* MiB of memory on cpu, but only .* MiB"):
        load_model(card)
    load_model(card, dtype=torch.bfloat16)


def test_parts_of_ranks_are_joined_one_at_a_time_and_what_does_not_fit_is_told_before(tmp_path: Path) -> None:
    folder = tmp_path / "step_1" / "model" / "pp_00" / "tp_00"
    folder.mkdir(parents=True)
    for rank in range(2):
        torch.save({"a": torch.full((2, 3), rank), "b": torch.zeros(4)}, folder / f"sdp_0{rank}.pt")
    shapes = {"a": torch.Size([4, 3]), "b": torch.Size([4])}
    tensors = iter_model_state(tmp_path / "step_1", shapes)
    assert [(name, tensor.shape) for name, tensor in tensors] == list(shapes.items())
    for shape in ([5, 3], [4, 2], [2, 4, 3]):
        with pytest.raises(CheckpointError, match=r"`a` has shape \(4, 3\), but the model's configuration says"):
            iter_model_state(tmp_path / "step_1", {**shapes, "a": torch.Size(shape)})
