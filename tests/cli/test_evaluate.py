from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from lexalcm.checkpoints.load import load_model
from lexalcm.cli.main import main
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.evaluation.predict import one_pass
from lexalcm.evaluation.protocol import cut, retrieval_figures
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model

DIM = 6
LAYERS = {"num_context_layers": 1, "num_denoiser_layers": 1}
SIZES = {"model_dim": 16, "num_heads": 2, "ffn_dim": 16, "timestep_dim": 8, **LAYERS}


def corpus(root: Path, splits: dict[str, int], dim: int = DIM) -> dict[str, list[np.ndarray]]:
    written = {}
    for s, (split, num) in enumerate(splits.items()):
        r = np.random.default_rng(s)
        docs = [np.cumsum(r.normal(size=(n, dim)), axis=0).astype(np.float32) for n in r.integers(1, 9, num)]
        docs.append(r.normal(size=(140, dim)).astype(np.float32))
        write_documents(root / split / "a.parquet", [NewDocument(["x"] * len(d), d) for d in docs], dtype="float32")
        written[split] = docs
    return written


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = create_pre1_model(Pre1Config(concept_dim=DIM, **SIZES))
    model.set_normalizer(center=torch.full((DIM,), 0.5), scale=torch.full((DIM,), 2.0))
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"concept_dim": DIM, **SIZES}
    text = yaml.safe_dump(
        {"name": "small", "model_family": "lexalcm", "model_config": config, "checkpoint": "model.safetensors"}
    )
    (folder / "card.yaml").write_text(text, encoding="ascii")
    return folder / "card.yaml"


def evaluate(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    assert main(["lcm", "evaluate", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def fault(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["lcm", "evaluate", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return err.strip()


def test_figures_are_those_of_the_protocol(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = corpus(tmp_path, {"split=train": 40, "split=validation": 20})
    found = evaluate(capsys, card, tmp_path, "--steps", 2, "--samples", 2, "--seed", 3)
    docs = list(cut(written["split=validation"]))
    wanted = retrieval_figures(one_pass(load_model(card), docs, seed=3), docs)
    row = found["rows"]["one pass"]
    assert {name: row[name] for name in wanted.as_dict()} == wanted.as_dict()
    assert found["split"] == "validation" and found["not_available"] == {}
    assert found["rows"]["samples, guided"]["note"] == "2 of 2 passes, ddim, guidance 3, rescale 0.7, noise 0.6"
    assert found["settings"]["baseline_concepts"] == sum(min(len(d), 128) for d in written["split=train"])
    copied = retrieval_figures((d[:-1] for d in docs), docs)
    assert found["rows"]["copy"]["acc_at_1_unseen"] == copied.acc_at_1_unseen


def test_table_is_printed_to_standard_output_alone(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path, {"split=validation": 4})
    assert main(["lcm", "evaluate", str(card), str(tmp_path), "--samples", "1", "--steps", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(f"{card} on {tmp_path}, split validation: 5 documents, ")
    assert "one pass" in out and out.count("not available") == 3 and "\033" not in out
    assert "documents" not in err


def test_baselines_learn_from_other_data_when_it_is_named(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path / "a", {"split=train": 5, "split=validation": 5})
    other = corpus(tmp_path / "b", {"split=test": 1, "split=train": 30})
    found = evaluate(capsys, card, tmp_path / "a", "--samples", 0, "--baseline-data", tmp_path / "b")
    assert found["settings"]["baseline_concepts"] == sum(min(len(d), 128) for d in other["split=train"])


def test_measuring_the_train_split_fits_no_baseline_on_it(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus(tmp_path, {"split=train": 5, "split=validation": 5})
    for split in ("train", "all"):
        found = evaluate(capsys, card, tmp_path, "--samples", 0, "--split", split)
        assert set(found["not_available"]) == {"mean", "ridge1", "ridge4"}
    assert found["rows"]["copy"]["documents"] == 12


def test_first_documents_alone_can_be_measured(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus(tmp_path, {"split=validation": 9})
    assert evaluate(capsys, card, tmp_path, "--samples", 0, "--max-documents", 4)["rows"]["copy"]["documents"] == 4


def test_faults_are_told_by_what_can_be_mended(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus(tmp_path / "wide", {"split=validation": 3}, dim=9)
    corpus(tmp_path / "a", {"split=validation": 3})
    data = tmp_path / "a"
    assert "6 dimensions, but the dataset's have 9" in fault(capsys, card, tmp_path / "wide")
    message = fault(capsys, card, data, "--device", "cuda:77")
    assert "Present: cpu" in message and "\n" not in message
    assert "it has validation" in fault(capsys, card, data, "--split", "test")
    assert "between 1 and 100" in fault(capsys, card, data, "--steps", 101)
    assert 'Did you mean "ddim"' in fault(capsys, card, data, "--sampler", "dimm")
    assert "--max-documents" in fault(capsys, card, data, "--max-documents", 0)
    assert "nothing is there" in fault(capsys, tmp_path / "none.yaml", data)
    assert "none" in fault(capsys, card, tmp_path / "none")


def test_other_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus(tmp_path, {"split=train": 3, "split=validation": 3})
    assert main(["lcm", "fit-normalizer", str(tmp_path), str(tmp_path / "n.safetensors")]) == 0
    capsys.readouterr()
    assert "ConceptNormalizer, not a model" in fault(capsys, tmp_path / "n.yaml", tmp_path)
