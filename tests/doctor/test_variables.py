"""Variables that change what commands do are shown, secrets never, and those that cannot be right are told."""

from __future__ import annotations

from lexalcm.doctor.children import Outcome
from lexalcm.doctor.finding import Finding
from lexalcm.doctor.variables import look_at_variables, shown_variables

NO_GPU = Outcome({"gpus": []})


def faults(**environment: str) -> list[Finding]:
    return [finding for finding in look_at_variables(NO_GPU, environment) if finding.status != "ok"]


def test_variables_that_matter_are_shown_and_secrets_are_not() -> None:
    environment = {"HF_HOME": "/hf", "HF_TOKEN": "hf_abcdef", "PYTHONPATH": "/x/hf_abcdef", "EDITOR": "vi", "RANK": "0"}
    assert shown_variables(environment) == {"HF_HOME": "/hf", "PYTHONPATH": "/x/***", "RANK": "0"}


def test_nothing_is_wrong_with_an_empty_environment_or_a_run_of_torchrun() -> None:
    assert not faults()
    assert not faults(WORLD_SIZE="2", RANK="0", TORCHELASTIC_RUN_ID="x", FAIRSEQ2_DEVICE="cpu")


def test_what_a_shell_has_kept_of_a_distributed_run_is_told() -> None:
    (fault,) = faults(WORLD_SIZE="2")
    assert fault.status == "warning" and "waits for other processes" in fault.text


def test_a_device_that_is_not_there_is_an_error() -> None:
    (fault,) = faults(FAIRSEQ2_DEVICE="cuda")
    assert fault.status == "error" and "0 GPUs are usable" in fault.text
    (fault,) = faults(FAIRSEQ2_DEVICE="gpu0")
    assert fault.status == "error" and "not the name of a device" in fault.text
    assert len(list(look_at_variables(Outcome({"gpus": [{}, {}]}), {"FAIRSEQ2_DEVICE": "cuda:1"}))) == 1


def test_paths_that_lead_nowhere_are_told() -> None:
    (fault,) = faults(LD_PRELOAD="/not/there.so")
    assert "/not/there.so, which is not there" in fault.text


def test_many_and_long_values_are_cut_on_the_screen() -> None:
    environment = {f"NCCL_{i:02}": "x" * 500 for i in range(40)}
    (line,) = look_at_variables(NO_GPU, environment)
    assert len(line.text) < 1000 and "and 28 more (--json)" in line.text
