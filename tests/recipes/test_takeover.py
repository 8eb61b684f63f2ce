"""A run goes on with another number of ranks: each epoch still has each document once."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest

from lexalcm.errors import ConfigError
from lexalcm.recipes.checkpoint_files import RestrictedLoader
from lexalcm.recipes.curves import read_metrics
from lexalcm.recipes.takeover import take_over
from tests.end_to_end.killing import Run, finish

FIELDS = [
    "dataset.reading.concepts_per_batch=64",
    "dataset.reading.max_seq_len=16",
    "regime.validate_every_n_steps=100",
]


def words(folder: Path, overrides: list[str], num_steps: int, *more: str) -> list[str]:
    fields = [*overrides, *FIELDS, "regime.checkpoint_every_n_steps=100", f"regime.num_steps={num_steps}", *more]
    return ["lcm", "train", "quickstart", str(folder), "--no-rich", "--config", *fields]


def num_concepts(corpus: Path) -> int:
    table = pq.read_table(corpus / "split=train" / "part-0.parquet", columns=["text_sentences_sonar_emb"])
    return sum(len(row) for row in table.column(0))


def test_no_concept_of_an_epoch_is_lost_or_repeated_as_ranks_come_and_go(
    tmp_path: Path, tiny_corpus: Path, tiny_overrides: list[str]
) -> None:
    folder = tmp_path / "run"
    output = ""
    # Amid the first epoch to one rank, amid the second to three, and to their end.
    for num_ranks, num_steps in ((2, 2), (1, 8), (3, 12)):
        run = finish(words(folder, tiny_overrides, num_steps), tmp_path / f"{num_ranks}.log", num_ranks=num_ranks)
        output += run.output()
    assert "goes on with 1 rank(s) instead of 2" in output and "goes on with 3 rank(s) instead of 1" in output
    assert [e["Step"] for e in read_metrics(folder / "metrics" / "train.jsonl")] == list(range(1, 13))
    totals = {e["Step"]: e["Total Number of Elements"] for e in read_metrics(folder / "metrics" / "train.jsonl")}
    ends = {int(epoch): int(step) for epoch, step in re.findall(r"End of epoch (\d+) reached after step (\d+)", output)}
    assert len(ends) >= 2 and ends[1] > 2
    for epoch, step in ends.items():
        assert totals[step] == epoch * num_concepts(tiny_corpus), epoch


def test_weights_in_parts_are_refused_by_both_numbers(tmp_path: Path, tiny_overrides: list[str]) -> None:
    sharded = "trainer.data_parallelism=fsdp"
    finish(words(tmp_path / "run", tiny_overrides, 2, sharded), tmp_path / "two", num_ranks=2)
    run = Run(words(tmp_path / "run", tiny_overrides, 4, sharded), tmp_path / "one")
    assert run.wait() == [2]
    assert "2 data-parallel rank(s), its weights in 2 part(s) (fsdp), but this run has 1 rank(s)" in run.output()


def test_parts_are_compared_even_where_the_ranks_are_as_many(tmp_path: Path) -> None:
    # Of ranks that share in fours, and now in twos.
    for part in (*(f"data_reader/dp_{r:02d}" for r in range(8)), *(f"model/pp_00/tp_00/sdp_{r:02d}" for r in range(4))):
        file = tmp_path / "step_5" / f"{part}.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    manager = Mock(maybe_get_last_step_number=lambda exclude_model_only: 5)
    gangs = Mock(dp=Mock(size=8), sdp=Mock(size=2))
    with pytest.raises(ConfigError, match=r"in 4 part\(s\) \(fsdp\), but this run has 8 rank\(s\) and needs 2"):
        take_over(manager, RestrictedLoader(), tmp_path, gangs, seed=1)
