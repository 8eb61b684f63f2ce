"""Cards of every kind are listed and shown, a user's own and those of kinds nobody has heard of included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lexalcm.cli.main import main

CARDS = """
name: house_model
model_family: lexalcm
model_arch: pre1_tiny
---
name: house_normalizer
model_family: sonar_normalizer
model_arch: base
---
name: house_data
dataset_family: concept_parquet
dataset_config: {path: /data/house}
---
name: data_as_meta_writes_it
parquet_path: {s3: /data/theirs}
---
name: house_choir
choir_family: voices
---
name: house_lost
base: nobody_has_this
"""


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # A process of its own: fairseq2 reads its asset folders once.
    environment = {**os.environ, "FAIRSEQ2_USER_ASSET_DIR": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "lexalcm.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def kinds(listing: str) -> dict[str, str]:
    """Kind of each card that is listed."""
    found: dict[str, str] = {}
    kind = ""
    for line in listing.splitlines():
        if line.startswith("  "):
            found[line.split()[0]] = kind
        else:
            kind = line
    return found


def test_cards_of_every_kind_are_listed_under_it(tmp_path: Path) -> None:
    (tmp_path / "cards.yaml").write_text(CARDS)
    done = run("lcm", "assets", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = kinds(done.stdout)
    wanted = {
        "house_model": "model",
        "house_normalizer": "normalizer",
        "house_data": "dataset",
        "data_as_meta_writes_it": "dataset",
        "house_choir": "choir",
        "pre1_400m": "model",
        "pre1_objective": "objective",
        "pre1_sampler": "sampler",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert "librispeech_960h" not in found and "--all lists them" in done.stdout
    everything = run("lcm", "assets", "list", "--all", folder=tmp_path)
    assert kinds(everything.stdout)["librispeech_960h"] == "dataset"
    assert "house_lost: nobody_has_this" in everything.stderr


def test_one_kind_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lcm", "assets", "--kind", "sampler"]) == 0
    assert set(kinds(capsys.readouterr().out).values()) == {"sampler"}


def test_a_card_is_shown_by_name_and_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lcm", "assets", "show", "pre1_sampler"]) == 0
    assert "sampler_family: lcm_sampler" in capsys.readouterr().out
    (tmp_path / "card.yaml").write_text("name: small\nbase: pre1_tiny\nmodel_config: {concept_dim: 8}\n")
    assert main(["lcm", "assets", "show", str(tmp_path / "card.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "small" and "    concept_dim: 8" in lines
    assert "  model_arch: pre1_tiny" in lines[lines.index("builds on pre1_tiny") :]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["shwo"], 'Did you mean "show"?'),
        (["show"], "needs the name of a card"),
        (["list", "pre1_tiny"], "fairseq2 lcm assets show pre1_tiny"),
        (["show", "pre1_samplr"], 'Did you mean "pre1_sampler"?'),
        (["--kind", "samler"], 'Did you mean "sampler"?'),
    ],
)
def test_a_fault_names_the_mend(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lcm", "assets", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and told in err and "Traceback" not in err


def test_fairseq2s_own_listing_is_passed_through(tmp_path: Path) -> None:
    (tmp_path / "cards.yaml").write_text(CARDS)
    listed = run("assets", "list", "--kind", "dataset", folder=tmp_path)
    assert listed.returncode == 0 and "dataset:house_data" in listed.stdout and "model:" not in listed.stdout
    shown = run("assets", "show", "house_model", folder=tmp_path)
    assert shown.returncode == 0 and "'pre1_tiny'" in shown.stdout
    assert run("assets", "show", "not_there", folder=tmp_path).returncode == 2
