"""A bad file in a folder of cards is one bad file, and a name means the first card that has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fairseq2.assets import AssetStore
from fairseq2.file_system import FileSystem
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.checkpoints.asset_folders import CardFolderLoader
from lexalcm.checkpoints.resolve import resolve_card
from lexalcm.errors import CardError
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.recipes.host import RecipeHost
from lexalcm.shipped import shipped_folder
from tests.recipes.acting import ActingRecipe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAIRSEQ2_ASSET_DIR", str(tmp_path / "assets"))
    (tmp_path / "assets").mkdir()
    return tmp_path / "assets"


def store(*extra: Path) -> AssetStore:
    config = LcmTrainConfig()
    config.common.assets.extra_paths = list(extra)
    return RecipeHost(ActingRecipe(lambda context: None), no_rich=True).asset_store(config)


def said(capsys: pytest.CaptureFixture[str], words: str) -> list[str]:
    """Lines of the log with certain words."""
    return [line for line in capsys.readouterr().err.splitlines() if words in line]


@pytest.mark.parametrize(
    "content",
    [
        b"name: [",
        b"[1, 2]",
        b"a: 1",
        b"name: 3",
        b"name: a@b@c",
        b"name: ''",
        b'name: "two\\nlines"',
        b"name: a\nbase: 3",
        b"\xff\xfe",
        b"name: !!python/object/apply:os.getcwd []",
        b'name: "\\e[2J"',
        b"a: " + b"[" * 500 + b"]" * 500,
    ],
)
def test_a_file_without_good_cards_is_passed_over_and_said(
    folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "bad.yaml").write_bytes(content)
    (folder / "good.yaml").write_text("name: mine\nbase: pre1_tiny\n")
    found = CardFolderLoader(get_dependency_resolver().resolve(FileSystem)).load(folder)
    assert found.asset_names == {"mine@"}
    assert found.maybe_get_metadata("mine@") == {"base": "pre1_tiny", "__base_path__": folder}
    (told,) = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    assert "bad.yaml (" in told and told.isprintable()


def test_a_bad_file_ends_no_look_up_of_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text("name: [")
    os.mkfifo(folder / "pipe.yaml")  # and a pipe is not waited for
    assert store().maybe_retrieve_card("pre1_400m") is not None
    (told,) = said(capsys, "passed over")
    assert "bad.yaml" in told


def test_a_card_that_shadows_a_shipped_one_is_said_once_with_both_places(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.yaml").write_text("name: pre1_objective\nobjective_family: mine\n")
    for _ in range(2):
        assert store().retrieve_card("pre1_objective").field("objective_family").value == "mine"
    (told,) = said(capsys, "stands in")
    assert f"pre1_objective stands in {folder} and in {shipped_folder('cards')}: the former counts" in told


def test_a_card_of_extra_paths_does_not_replace_a_shipped_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "more").mkdir()
    (folder.parent / "more" / "a.yaml").write_text("name: pre1_objective\nobjective_family: mine\n")
    card = store(folder.parent / "more").retrieve_card("pre1_objective")
    assert card.field("objective_family").value == "lcm_objective"
    assert said(capsys, f"pre1_objective stands in {shipped_folder('cards')} and in {folder.parent / 'more'}")


def test_of_one_name_in_two_files_the_first_file_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b", "a"):
        (folder / f"{name}.yaml").write_text(f"name: on_the_fly_lcm\nfrom_file: {name}\n")
    assert store().retrieve_card("on_the_fly_lcm").field("from_file").value == "a"
    assert said(capsys, f"{folder / 'a.yaml'} and in {folder / 'b.yaml'}")


def test_cards_in_a_circle_end_no_look_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.yaml").write_text("name: ca\nbase: cb\n---\nname: cb\nbase: ca\n---\nname: fine\nbase: pre1_tiny\n")
    found = store()
    assert found.maybe_retrieve_card("ca") is None and found.maybe_retrieve_card("fine") is not None
    assert len(said(capsys, "builds on itself")) == 2


def test_a_card_of_a_folder_cannot_ask_for_the_environment(folder: Path) -> None:
    (folder / "a.yaml").write_text("name: inner\nmodel_config: {x: ['${env:HOME}']}\n---\nname: outer\nbase: inner\n")
    with pytest.raises(CardError, match=r"Card inner .*`\$\{env:HOME\}` would substitute something of this machine"):
        resolve_card("outer", store=store())
