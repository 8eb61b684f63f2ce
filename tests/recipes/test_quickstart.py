"""The quickstart on a corpus and a model of seconds: what it leaves in its folder, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lexalcm.pipelines.demo_corpus import DemoCorpusConfig
from lexalcm.recipes.quickstart import run_quickstart
from tests.conftest import TINY_RUN

KEYS = {"retrieval_at_1", "copy_retrieval_at_1", "ridge_retrieval_at_1", "chance_at_1", "seconds", "parameters"}


def test_figures_curve_and_model_stand_in_the_folder_and_a_second_start_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = DemoCorpusConfig(num_documents=120, dim=8)
    assert run_quickstart(tmp_path / "quick", corpus=corpus, overrides=TINY_RUN) == 0
    summary = json.loads((tmp_path / "quick" / "summary.json").read_text())
    assert KEYS <= summary.keys()
    assert (tmp_path / "quick" / "loss.png").stat().st_size > 0
    told = capsys.readouterr().out
    for share in ("retrieval_at_1", "copy_retrieval_at_1", "ridge_retrieval_at_1", "chance_at_1"):
        assert f"{summary[share]:.1%}" in told
    assert told.count("  > ") == 20  # four stories continued by five sentences
    weights = (tmp_path / "quick" / "model" / "model.safetensors").read_bytes()
    assert run_quickstart(tmp_path / "quick", corpus=corpus, overrides=TINY_RUN) == 0
    assert (tmp_path / "quick" / "model" / "model.safetensors").read_bytes() == weights
