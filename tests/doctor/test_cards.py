"""A card of the user's that is broken, or has a name that is taken, is told with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexalcm.doctor.cards import asset_folders, look_at_cards, shipped_names
from lexalcm.doctor.finding import Finding


@pytest.fixture
def user(tmp_path: Path) -> Path:
    folder = tmp_path / "user"
    folder.mkdir()
    return folder


def look(user: Path, system: Path | None = None) -> list[Finding]:
    environment = {"FAIRSEQ2_USER_ASSET_DIR": str(user)}
    if system is not None:
        environment["FAIRSEQ2_ASSET_DIR"] = str(system)
    return list(look_at_cards(environment))


def faults(user: Path, system: Path | None = None) -> list[str]:
    return [finding.text for finding in look(user, system) if finding.status == "warning"]


def test_what_ships_is_known_without_importing_it() -> None:
    names = shipped_names()
    assert names["pre1_objective@"] == "lexalcm" and names["text_sonar_basic_encoder@"] == "sonar"
    assert "fairseq2" in names.values()


def test_folders_are_those_of_fairseq2(user: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    found = asset_folders({"FAIRSEQ2_ASSET_DIR": str(nowhere), "XDG_CONFIG_HOME": str(tmp_path)})
    assert found["FAIRSEQ2_ASSET_DIR"] == (Path("/etc/fairseq2/assets"), nowhere)
    assert found["FAIRSEQ2_USER_ASSET_DIR"] == (tmp_path / "fairseq2" / "assets", None)


def test_good_cards_are_counted(user: Path) -> None:
    (user / "sub").mkdir()
    (user / "a.yaml").write_text("name: a\n---\nname: a@cluster\n")
    (user / "sub" / "b.yml").write_text("name: b\n")
    (user / "notes.txt").write_text("{")
    assert not faults(user)
    assert any(finding.text.endswith(f"{user}, 3 cards") for finding in look(user))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [a\n", "cannot be read as YAML"),
        ("model:\n  name: a\n", "card 1 has no name"),
        ("name: a\n---\n- 3\n", "card 2 is not a mapping"),
        ("name: a@b@c\n", "card 1 has no name"),
        ("name: a\n---\nname: a\n", '"a" is a card of'),
        ("name: pre1_objective\n", '"pre1_objective" is a card of lexalcm too; this one counts'),
    ],
)
def test_a_fault_is_told_with_its_file(user: Path, text: str, told: str) -> None:
    (user / "bad.yaml").write_text(text)
    (fault,) = faults(user)
    assert fault.startswith(f"{user / 'bad.yaml'}: ") and told in fault


def test_a_name_in_both_folders_is_told(user: Path, tmp_path: Path) -> None:
    system = tmp_path / "system"
    system.mkdir()
    for folder in (user, system):
        (folder / "a.yaml").write_text("name: a\n")
    assert faults(user, system) == [f'{user / "a.yaml"}: "a" is a card of {system} too; that one counts']


def test_a_folder_of_many_faults_takes_few_lines(user: Path) -> None:
    for i in range(50):
        (user / f"{i:02}.yaml").write_text("seed: 3\n")
    assert len(faults(user)) == 4 and "47 more such files" in faults(user)[-1]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path / "nowhere")
    assert f"FAIRSEQ2_USER_ASSET_DIR={tmp_path / 'nowhere'} is not there" in fault
