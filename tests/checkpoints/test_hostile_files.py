"""Cards, safetensors and archives of strangers: refused by name, nothing written anywhere."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from fairseq2.assets import AssetCard
from safetensors.torch import save_file

from lexalcm.checkpoints.archive_members import refuse_unsafe_members
from lexalcm.checkpoints.card_file import cards_in_file
from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.normalizer_file import read_normalizer_file
from lexalcm.checkpoints.resolve import find_in_folder, saved_scores, saved_steps
from lexalcm.checkpoints.safetensors_file import read_safetensors_header
from lexalcm.checkpoints.special_concepts import special_concepts_of
from lexalcm.errors import CardError, CheckpointError, ConfigError
from lexalcm.shown import shown
from tests.checkpoints.tiny_models import FIELDS


def write_card(folder: Path) -> Path:
    """A card whose weights hold nothing."""
    folder.mkdir()
    save_file({"a": torch.zeros(2)}, folder / "m.safetensors")
    card = {"name": "mine", "model_family": "lexalcm", "model_config": FIELDS, "checkpoint": "m.safetensors"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


def tensor(start: int = 0, end: int = 16, dtype: str = "F32", shape: tuple[int, ...] = (4,)) -> str:
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [start, end]})


def written(file: Path, header: str | bytes, *, claimed: int | None = None) -> Path:
    """A safetensors file with 32 zero bytes of numbers behind a header."""
    header = header.encode() if isinstance(header, str) else header
    file.write_bytes(struct.pack("<Q", len(header) if claimed is None else claimed) + header + bytes(32))
    return file


@pytest.mark.parametrize(
    "header",
    [
        f'{{"center": {tensor(0, 1600)}}}',
        f'{{"center": {tensor()}, "scale": {tensor(8, 24)}}}',
        f'{{"center": {tensor()}, "center": {tensor(16, 32)}}}',
        b'{"\xff\xfe": ' + tensor(0, 32, shape=(8,)).encode() + b"}",
        f'{{"center": {tensor(0, 32, shape=(8,))}, "__metadata__": 3}}',
        f'{{"center": {tensor(0, 32, shape=(1 << 40, 1 << 40))}}}',
        f'{{"center": {tensor(0, 32, dtype="X9")}}}',
        '{"center": ' + "[" * 9999,
    ],
    ids=["beyond the file", "overlap", "twice", "no UTF-8", "metadata", "overflow", "unknown type", "deep"],
)
def test_a_header_that_lies_is_an_error_that_names_the_file(tmp_path: Path, header: str | bytes) -> None:
    file = written(tmp_path / "f.safetensors", header)
    for read in (read_safetensors_header, read_normalizer_file):
        with pytest.raises(CheckpointError, match=r"f\.safetensors") as caught:
            read(file)
        assert all(line.isprintable() for line in str(caught.value).splitlines())


def test_a_header_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="header too large"):
        read_safetensors_header(written(tmp_path / "f.safetensors", "{}", claimed=1 << 60))


@pytest.mark.parametrize(("dtype", "shape"), [("F8_E4M3", (16,)), ("F4", (32,)), ("C64", (2,)), ("U64", (2,))])
def test_numbers_of_another_type_are_named_not_cast(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    header = f'{{"center": {tensor(0, 16, dtype, shape)}, "scale": {tensor(16, 32, dtype, shape)}}}'
    file = written(tmp_path / "f.safetensors", header)
    with pytest.raises(CheckpointError, match=f"numbers of the type {dtype}"):
        read_normalizer_file(file)
    with pytest.raises(CheckpointError, match=f"numbers of the type {dtype}"):
        special_concepts_of(AssetCard("c", {"special_concepts": {"file": file.name}, "__base_path__": tmp_path}))


@pytest.mark.parametrize("fact", ["[" * 99_999, "9" * 5000])
def test_facts_that_json_cannot_hold_are_told_or_kept_as_text(tmp_path: Path, fact: str) -> None:
    facts = json.dumps({"special_concepts": fact})
    file = written(tmp_path / "f.safetensors", f'{{"a": {tensor(0, 32, shape=(8,))}, "__metadata__": {facts}}}')
    with pytest.raises(CheckpointError, match="is not what lexalcm writes"):
        special_concepts_of(AssetCard("c", {"special_concepts": {"file": file.name}, "__base_path__": tmp_path}))
    with pytest.raises(CheckpointError, match="must hold the tensors"):
        read_normalizer_file(file)


def change_card(card: Path, **fields: object) -> None:
    card.write_text(yaml.safe_dump({**yaml.safe_load(card.read_text()), **fields}))


def test_a_card_in_a_folder_that_was_handed_on_names_nothing_outside_it(tmp_path: Path) -> None:
    card = write_card(tmp_path / "given")
    (tmp_path / "mine.safetensors").touch()
    fields: tuple[dict[str, object], ...] = (
        {"checkpoint": "../mine.safetensors"},
        {"checkpoint": "a/../../mine.safetensors"},
        {"special_concepts": {"file": "../mine.safetensors"}},
    )
    before = card.read_text()
    for given in fields:
        card.write_text(before)
        change_card(card, **given)
        with pytest.raises(CardError, match=f"`{next(iter(given))}.* leads out of .*given"):
            find_in_folder(card.parent)
        assert cards_in_file(card)  # named itself, it is the user's own
    card.write_text(before)
    change_card(card, checkpoint=str(tmp_path / "mine.safetensors"))
    assert find_in_folder(card.parent).cards


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("num_context_layers", 300_000, "of 1,000 layers at most"),
        ("model_dim", 10**18, "of 281,474,976,710,656 at most"),
        ("model_dim", 10**30, "of 281,474,976,710,656 at most"),
        ("timestep_dim", 10**14, "no model can be built"),
    ],
)
def test_sizes_that_no_machine_has_are_refused_before_a_model_is_built(
    tmp_path: Path, field: str, value: int, told: str
) -> None:
    card = write_card(tmp_path / "m")
    change_card(card, model_config={**FIELDS, field: value})
    with pytest.raises(ConfigError, match=told):
        load_model(card)


def test_names_with_control_characters_are_refused_and_others_are_shown_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text('name: "a\\nb"\nmodel_family: lexalcm\n')
    with pytest.raises(CardError, match=r"'a\\nb', which is not on one line"):
        cards_in_file(tmp_path / "card.yaml")
    assert shown("a\x1b[2J\nb") == r"a\x1b[2J\nb" and len(shown("x" * 9999)) < 200
    assert shown("at s3://key:se/c@ret@host/a") != shown("at s3://key:pass@host/a") == "at s3://key:***@host/a"


def test_folders_and_scores_that_nobody_wrote_do_not_end_a_look(tmp_path: Path) -> None:
    for name in ("step_4", "step_\u00b2", "step_" + "9" * 40, "step_x"):
        (tmp_path / name).mkdir()
    assert saved_steps(tmp_path) == [4]
    (tmp_path / "scores").mkdir()
    for text in ("seven", "nan"):
        (tmp_path / "scores" / "step_4.txt").write_text(text)
        with pytest.raises(CheckpointError, match=r"step_4\.txt .*Remove it"):
            saved_scores(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../outside", tarfile.REGTYPE, ""),
        ("/outside", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "../outside"),
        ("link", tarfile.LNKTYPE, "/etc/hostname"),
        ("pipe", tarfile.CHRTYPE, ""),
    ],
)
def test_a_member_of_an_archive_stays_in_the_folder_that_it_is_unpacked_to(
    tmp_path: Path, name: str, kind: bytes, link: str
) -> None:
    refuse_unsafe_members()
    member = tarfile.TarInfo(str(tmp_path) + name if name == "/outside" else name)
    member.type, member.linkname = kind, link
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member, io.BytesIO())
    with tarfile.open(tmp_path / "a.tar") as archive:
        if name == "/outside":  # taken as a relative path, as tar does
            archive.extractall(tmp_path / "in")
        else:
            with pytest.raises(OSError, match="Nothing outside its own folder"):
                archive.extractall(tmp_path / "in")
    assert not (tmp_path / "outside").exists()
