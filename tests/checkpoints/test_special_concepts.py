"""Special concepts travel with the weights that were trained with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from lexalcm.checkpoints.card_file import cards_in_file
from lexalcm.checkpoints.export_model import export_model
from lexalcm.checkpoints.import_model import import_model
from lexalcm.checkpoints.load import load_described
from lexalcm.checkpoints.resolve import find_in_folder, resolve_card
from lexalcm.checkpoints.special_concepts import (
    SPECIAL_FILE,
    SpecialConceptsOfModel,
    save_special_concepts,
    special_concepts_of,
)
from lexalcm.errors import CardError, CheckpointError, LexalcmError
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model

FIELDS = {"concept_dim": 4, "model_dim": 8, "num_context_layers": 1, "num_denoiser_layers": 1, "num_heads": 2}
SIZES = {**FIELDS, "ffn_dim": 10, "timestep_dim": 4}

VECTORS = {name: torch.arange(4.0) + number for number, name in enumerate(("begin", "stop", "pad", "reply"))}
NAMED = {"file": SPECIAL_FILE, "prefix": "begin", "suffix": "stop"}


def write_card(folder: Path, field: Any = NAMED, **more: Any) -> Path:
    """A trained model whose card names special concepts."""
    folder.mkdir(exist_ok=True)
    save_file(create_pre1_model(Pre1Config(**SIZES)).state_dict(), folder / "w.safetensors")
    card = {"name": "mine", "model_family": "lexalcm", "model_config": SIZES, "checkpoint": "w.safetensors", **more}
    if field is not None:
        card["special_concepts"] = field
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


def write_model(folder: Path) -> Path:
    card = write_card(folder)
    save_special_concepts(folder / SPECIAL_FILE, SpecialConceptsOfModel(VECTORS, prefix="begin", suffix="stop"))
    return card


def check(special: SpecialConceptsOfModel | None) -> None:
    """They are those of :func:`write_model`."""
    assert special is not None
    assert (special.prefix, special.suffix, special.target_suffix) == ("begin", "stop", None)
    assert special.vectors.keys() == VECTORS.keys()
    assert all(torch.equal(vector, VECTORS[name]) for name, vector in special.vectors.items())


def test_a_card_tells_what_stood_around_documents_and_what_else_the_file_holds(tmp_path: Path) -> None:
    special = special_concepts_of(resolve_card(write_model(tmp_path / "m")), 4)
    check(special)
    assert special is not None and special.start is not None and special.end is not None and special.others is not None
    assert torch.equal(special.start, VECTORS["begin"]) and torch.equal(special.end, VECTORS["stop"])
    assert sorted(special.others[:, 0].tolist()) == [2.0, 3.0]


def test_a_text_ends_as_the_targets_did_where_documents_had_targets() -> None:
    special = SpecialConceptsOfModel(VECTORS, suffix="reply", target_suffix="stop")
    assert special.start is None
    assert special.end is not None and torch.equal(special.end, VECTORS["stop"])
    assert special.others is not None and VECTORS["reply"].tolist() in special.others.tolist()


def test_a_card_without_them_has_none(tmp_path: Path) -> None:
    assert special_concepts_of(resolve_card(write_card(tmp_path / "m", None))) is None
    assert SpecialConceptsOfModel({}).others is None


def test_the_file_is_found_beside_the_card_that_names_it_though_another_builds_on_that(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    (tmp_path / "m" / "other.yaml").write_text("name: other\nbase: mine\n")
    (tmp_path / "m").rename(tmp_path / "moved")
    check(special_concepts_of(cards_in_file(tmp_path / "moved" / "other.yaml")[0]))


def test_published_vectors_with_a_leading_axis_are_read(tmp_path: Path) -> None:
    card = write_card(tmp_path / "m", {"file": "end.safetensors", "suffix": "embedding"})
    save_file({"embedding": torch.ones(1, 4, dtype=torch.float16)}, tmp_path / "m" / "end.safetensors")
    special = special_concepts_of(resolve_card(card), 4)
    assert special is not None and special.end is not None
    assert special.end.tolist() == [1.0] * 4 and special.end.dtype == torch.float32


@pytest.mark.parametrize(
    ("field", "error", "told"),
    [
        ("x.safetensors", CardError, "`special_concepts` must be a mapping with a `file`, but is 'x.safetensors'"),
        ({"prefix": "begin"}, CardError, "`special_concepts` must be a mapping with a `file`"),
        ({**NAMED, "sufix": "stop"}, CardError, 'has no field `sufix`. Did you mean "suffix"'),
        ({**NAMED, "suffix": 3}, CardError, "`special_concepts.suffix` must be a text, but is 3"),
        ({**NAMED, "suffix": "stpo"}, CardError, '`special_concepts.suffix`: "stpo" is not .* Did you mean "stop"'),
        ({**NAMED, "file": "gone.safetensors"}, CheckpointError, "names .*m/gone.safetensors, which does not exist"),
        ({**NAMED, "file": "card.yaml"}, CheckpointError, "card.yaml.* is not a safetensors file"),
        ({"file": "nan.safetensors"}, CheckpointError, "nan.safetensors: `bad` must be one finite vector"),
        ({"file": "flat.safetensors"}, CheckpointError, "flat.safetensors: `bad` must be one finite vector, .*[2, 4]"),
    ],
)
def test_what_cannot_be_used_is_told_apart(tmp_path: Path, field: Any, error: type[LexalcmError], told: str) -> None:
    write_model(tmp_path / "m")
    save_file({"bad": torch.tensor([1.0, float("nan")])}, tmp_path / "m" / "nan.safetensors")
    save_file({"bad": torch.ones(2, 4)}, tmp_path / "m" / "flat.safetensors")
    card = resolve_card(write_card(tmp_path / "m", field))
    with pytest.raises(error, match=told.replace("[", r"\[")) as caught:
        special_concepts_of(card, 4)
    assert len(str(caught.value).splitlines()) <= 3


def test_vectors_of_another_encoder_are_refused_with_both_widths(tmp_path: Path) -> None:
    card = resolve_card(write_model(tmp_path / "m"))
    with pytest.raises(CheckpointError, match="`begin` is 4 wide, but the concepts of Card mine .* are 8 wide"):
        special_concepts_of(card, 8)


def test_an_export_has_them_and_can_be_moved(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    files = export_model(load_described(tmp_path / "m"), tmp_path / "out", "safetensors")
    assert SPECIAL_FILE in files.writers and not files.notes
    shutil.rmtree(tmp_path / "m")
    (tmp_path / "out").rename(tmp_path / "moved")
    check(special_concepts_of(resolve_card(tmp_path / "moved")))


def test_an_export_in_a_layout_without_a_place_for_them_puts_them_beside_it(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    files = export_model(load_described(tmp_path / "m"), tmp_path / "out", "huggingface")
    assert (tmp_path / "out" / SPECIAL_FILE).is_file()
    assert any(SPECIAL_FILE in note for note in files.notes)


def test_an_imported_model_keeps_them_wherever_its_card_lies(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    written = import_model(tmp_path / "m", name="again", card_file=tmp_path / "cards" / "again.yaml")
    check(special_concepts_of(resolve_card(written.card_file)))


def test_a_run_that_is_still_training_has_those_in_its_folder(tmp_path: Path) -> None:
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "step_4").mkdir(parents=True)
    trained = {"name": "last_checkpoint", "model_family": "lexalcm", "model_config": SIZES}
    (checkpoints / "model.yaml").write_text(yaml.safe_dump(trained))
    kept = tmp_path / "run" / SPECIAL_FILE
    save_special_concepts(kept, SpecialConceptsOfModel(VECTORS, prefix="begin", suffix="stop"))
    for place in (tmp_path / "run", checkpoints):
        check(special_concepts_of(find_in_folder(place).cards[0]))


def test_the_end_in_another_language_is_no_rival_of_the_end(tmp_path: Path) -> None:
    facts = {"stop": {"role": "stop"}, "pad": {"role": "stop", "lang": "jpn_Jpan"}, "begin": {"role": "begin"}}
    card = write_card(tmp_path / "m")
    told = SpecialConceptsOfModel(VECTORS, prefix="begin", suffix="stop", facts=facts)
    save_special_concepts(tmp_path / "m" / SPECIAL_FILE, told)
    special = special_concepts_of(resolve_card(card), 4)
    check(special)
    assert special is not None and special.facts == facts and special.others is not None
    assert special.others[:, 0].tolist() == [3.0]  # `reply` alone


def test_notes_of_another_form_are_refused(tmp_path: Path) -> None:
    card = write_card(tmp_path / "m")
    save_file(VECTORS, tmp_path / "m" / SPECIAL_FILE, metadata={"special_concepts": "[1]"})
    with pytest.raises(CheckpointError, match="under `special_concepts` is not what lexalcm writes"):
        special_concepts_of(resolve_card(card), 4)
