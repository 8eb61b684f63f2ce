"""What a user reads of an exception, and the exit code."""

from __future__ import annotations

import pytest
import torch
from fairseq2.assets import AssetNotFoundError
from fairseq2.composition import ExtensionError
from fairseq2.device import LocalRankOutOfRangeError
from fairseq2.error import OperationalError

from lexalcm.cli.failures import describe, report
from lexalcm.errors import ConfigError, SetupError
from lexalcm.installation import DOCTOR


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("`lr` must be above 0."), 2, "error: `lr` must be above 0."),
        (AssetNotFoundError("pre2"), 2, "pre2"),
        (LocalRankOutOfRangeError(1, 1, "cuda"), 2, "at most one process a device (torchrun --nproc-per-node)"),
        (caused(OperationalError("A write failed."), OSError("No space left on device")), 1, "cause: No space left"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            1,
            "A smaller batch needs less memory.",
        ),
        (FileNotFoundError(2, "No such file or directory", "/data/wiki"), 1, "/data/wiki: No such file or directory"),
    ],
)
def test_what_can_be_mended_is_told_in_a_few_lines_without_a_traceback(
    error: Exception, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, debug=False) == code
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said
    assert len(said.splitlines()) <= 3


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (SetupError("torch is missing. Run: pip install torch"), 2, "Run: pip install torch"),
        (SetupError(f"torch is missing.\n{DOCTOR}"), 2, "torch is missing."),
        (caused(ExtensionError("x:y", "x:y extension failed."), ImportError("no name z")), 1, "cause: no name z"),
        (ModuleNotFoundError("No module named 'wtpsplit'", name="wtpsplit"), 2, "No module named 'wtpsplit'"),
        (ImportError("cannot import name 'x' from 'fairseq2'", name="fairseq2"), 2, "cannot import name 'x'"),
        (OSError("libcudart.so.12: cannot open shared object file: No such file"), 2, "libcudart.so.12: cannot open"),
        (RuntimeError("fairseq2 requires a CPU-only build of PyTorch 2.9.1, but"), 2, "a CPU-only build of PyTorch"),
    ],
)
def test_a_broken_installation_is_told_with_a_pointer_to_the_whole_picture(
    error: Exception, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, debug=False) == code
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said
    assert said.splitlines()[-1] == DOCTOR and said.count(DOCTOR) == 1 and len(said.splitlines()) <= 3


@pytest.mark.parametrize("error", [ImportError("no name x", name="lexalcm.data.rows"), RuntimeError("shapes differ")])
def test_a_name_of_our_own_that_is_missing_is_our_mistake(error: Exception) -> None:
    assert describe(error) == (None, 1)


def test_a_mistake_of_ours_keeps_its_traceback_and_asks_to_be_reported(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("left")
    except KeyError as error:
        assert report(error, debug=False) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "KeyError: 'left'" in said and "please report it" in said


def test_other_ranks_than_the_first_say_which_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "3")
    report(ConfigError("no"), debug=False)
    assert capsys.readouterr().err == "[rank 3] error: no\n"


def test_an_unforeseen_error_of_the_host_is_not_taken_for_the_users() -> None:
    assert describe(LookupError("x")) == (None, 1)
