"""Recipes that ask for code, for the environment, or would write passwords down; and run folders that were tampered with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from lexalcm.errors import CheckpointError, ConfigError
from lexalcm.recipes.dataset import named_config
from lexalcm.recipes.host import RecipeHost
from lexalcm.recipes.loading import find_recipe, load_train_config
from lexalcm.recipes.run import run_training
from tests.recipes.acting import ActingRecipe

CODE = "__import__('os').system('touch owned')"


@pytest.fixture(scope="module")
def host() -> RecipeHost:
    return RecipeHost(ActingRecipe(lambda context: None), no_rich=True)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (f'trainer.mixed_precision.dtype="{CODE}"', "must be one of float32"),
        ("optimizer.config.lr=!!python/object/apply:os.getcwd []", "tag !!python/object/apply:os.getcwd"),
        (
            "model.config_overrides={ffn_dim: '${env:HOME}'}",
            "`model.config_overrides.ffn_dim` .*nothing is substituted",
        ),
        ("dataset.path=${env:MY_PASSWORD}", "`dataset.path` is .*nothing is substituted"),
        ("dataset.path=ftp://me:hunter2@host/x", r"ftp://me:\*\*\*@host/x, which holds a password"),
        ("dataset.sources=[{path: 's3://key:hunter2@host/x'}]", r"`dataset.sources\[0\].path` .*password"),
        ("regime._set_={num_steps: 3}", "no field `_set_`"),
        ("model.config_overrides._del_=[ffn_dim]", "no field `_del_`"),
        ('model.config_overrides={"a b": 1}', "no field `a b`"),
    ],
)
def test_an_override_is_data_and_holds_no_secret(host: RecipeHost, override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        load_train_config(host, find_recipe("quickstart"), [override])
    assert "hunter2" not in str(caught.value) and len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a [*a]", "stands within what it names"),
        ("a: " + "[" * 500, "levels deep"),
        ("model: !!python/name:os.system", "tag !!python/name:os.system"),
    ],
)
def test_a_recipe_file_is_plain_data(host: RecipeHost, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"r\.yaml is not valid YAML: .*{told}"):
        load_train_config(host, tmp_path / "r.yaml")


def test_a_dataset_named_on_the_command_line_holds_no_password() -> None:
    with pytest.raises(ConfigError, match=r"https://me:\*\*\*@host/x\.parquet"):
        named_config("https://me:hunter2@host/x.parquet")


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (os.system, (f"touch {self.file}",))


def test_a_run_keeps_secrets_to_itself_and_is_not_resumed_from_a_pickle(
    tmp_path: Path, tiny_overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MY_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("http_proxy", "http://me:hunter2@127.0.0.1:1")
    short = [*tiny_overrides, "validation.num_samples=0", "regime.validate_every_n_steps=99"]
    assert run_training("quickstart", tmp_path / "run", overrides=[*short, "regime.num_steps=4"], no_rich=True) == 0
    captured = capfd.readouterr()
    assert "hunter2" not in captured.out + captured.err
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file
    for part in ("trainer", "model", "optimizer", "data_reader"):
        copy = tmp_path / part
        shutil.copytree(tmp_path / "run", copy)
        (file,) = (copy / "checkpoints" / "step_4" / part).rglob("*.pt")
        torch.save({"state": Touch(tmp_path / "owned")}, file)
        with pytest.raises(CheckpointError, match=rf"{file.name}` .*object of the class posix\.system"):
            run_training("quickstart", copy, overrides=[*short, "regime.num_steps=8"], no_rich=True)
    assert not (tmp_path / "owned").exists()
