"""What cannot be honoured is refused before any work, in words that name the options."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pytest

from lexalcm.cli.launch_options import add_launch_arguments, launch_config
from lexalcm.errors import ConfigError
from lexalcm.pipelines.launch_config import LaunchConfig, num_cores, parse_minutes, parse_slurm_options


def parsed(*words: str) -> LaunchConfig:
    parser = ArgumentParser()
    add_launch_arguments(parser)
    return launch_config(parser.parse_args(words))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_several_nodes_are_refused_locally_and_both_options_are_named() -> None:
    with pytest.raises(ConfigError, match="--launcher local .* --nodes is 2.*--launcher slurm"):
        parsed("--launcher", "local", "--nodes", "2")
    assert parsed("--nodes", "1").nodes == 1


def test_slurm_where_it_is_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="--launcher slurm .* no sbatch on PATH.\n.*--launcher local"):
        parsed("--launcher", "slurm")


def test_a_misspelt_launcher_offers_the_near_match() -> None:
    with pytest.raises(ConfigError, match='Did you mean "slurm"'):
        parsed("--launcher", "slrum")


@pytest.mark.parametrize(
    "words",
    [
        ["--mem-gb", "8"],
        ["--time", "10"],
        ["--partition", "gpu"],
        ["--qos", "low"],
        ["--account", "me"],
        ["--constraint", "a100"],
        ["--gpus-per-worker", "1"],
        ["--slurm-option", "exclude=node7"],
    ],
)
def test_options_of_slurm_are_refused_locally_by_name(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"^{words[0]}: .*--launcher is local"):
        parsed(*words)


@pytest.mark.parametrize("option", ["--workers", "--cpus-per-worker"])
def test_no_workers_and_no_threads_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be at least 1"):
        parsed(option, "0")


def test_nodes_and_another_number_of_workers_contradict_each_other(cluster: None) -> None:
    with pytest.raises(ConfigError, match="--nodes 2 .* --workers is 8"):
        parsed("--launcher", "slurm", "--nodes", "2", "--workers", "8")
    assert parsed("--launcher", "slurm", "--nodes", "2").sized(100).num_workers == 2


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("00:30", 1),
        ("01:30:00", 90),
        ("1:00:01", 61),
        ("2-0", 2880),
        ("1-12:00", 2160),
        ("1-00:00:30", 1441),
    ],
)
def test_times_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "an hour", "1.5", "-5", "1:2:3:4"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        parse_minutes(text)


def test_further_options_of_slurm_are_pairs_or_flags() -> None:
    assert parse_slurm_options(["exclude=a,b=c", "--mail_type=END", "requeue"]) == {
        "exclude": "a,b=c",
        "mail-type": "END",
        "requeue": None,
    }


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("partition=gpu", "--partition"),
        ("cpus_per_task=8", "--cpus-per-worker"),
        ("array=0-5", "set by the launcher"),
        ("a b=1", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("comment=a\n#SBATCH --uid=0", "one line"),
    ],
)
def test_options_that_would_contradict_ours_are_refused(word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_slurm_options([word])


def test_local_workers_share_the_cores_out_and_are_no_more_than_the_shards() -> None:
    assert LaunchConfig().sized(1000).num_workers == max(1, num_cores() // 4)
    assert LaunchConfig(cpus_per_worker=1).sized(1000).num_workers == num_cores()
    assert LaunchConfig(num_workers=8).sized(3).num_workers == 3


def test_slurm_workers_get_gpus_where_the_work_asks_for_them(cluster: None) -> None:
    config = parsed("--launcher", "slurm")
    sized = config.sized(100, device="cuda")
    assert (sized.num_workers, sized.gpus_per_worker, sized.cpus_per_worker, sized.time_min) == (16, 1, 4, 720)
    assert config.sized(5).gpus_per_worker == 0 and config.sized(5).num_workers == 5
