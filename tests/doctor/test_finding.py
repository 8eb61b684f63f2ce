"""A report can be shown to anyone, and no probe that fails hides the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lexalcm.doctor.finding import Finding, cleaned, guarded, without_secrets
from lexalcm.errors import SetupError
from lexalcm.installation import DOCTOR
from lexalcm.shown import is_secret


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "X_AUTH"])
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


def test_a_secret_is_shown_nowhere() -> None:
    environment = {"HF_TOKEN": "hf_abcdef123", "HF_HOME": "/data/hf"}
    assert without_secrets("failed with hf_abcdef123 in /data/hf", environment) == "failed with *** in /data/hf"
    assert without_secrets("http://me:pw@proxy:80 and s3://b/c", {}) == "http://***@proxy:80 and s3://b/c"


def test_the_home_folder_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert without_secrets(f"{tmp_path}/.cache and {tmp_path}s", {}) == f"~/.cache and {tmp_path}s"


def test_a_finding_is_one_line() -> None:
    assert cleaned(Finding("ok", "x", "one\n  two")).text == "one two"


def test_a_probe_that_fails_is_a_finding_and_keeps_what_it_found() -> None:
    def probe() -> Iterator[Finding]:
        yield Finding("ok", "x", "fine")
        raise KeyError("left")

    before, finding = guarded("x", probe)
    assert (
        before.text == "fine"
        and finding.status == "warning"
        and "could not be looked at: KeyError: 'left'" in finding.text
    )


def test_what_the_installation_lacks_is_an_error_with_its_mend() -> None:
    def probe() -> Iterator[Finding]:
        raise SetupError(f"The cards are missing. Run: pip install it\n{DOCTOR}")

    assert guarded("x", probe) == [Finding("error", "x", "The cards are missing", "pip install it")]
