from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.normalizer_file import load_normalizer_file
from lexalcm.cli.main import main
from lexalcm.data.write import NewDocument, write_documents


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two splits of far different values; the train split's concepts."""
    r = np.random.default_rng(0)
    for shift, split in ((0.0, "train"), (100.0, "validation")):
        docs = [shift + r.normal(size=(20, 5)) * [1, 2, 0, 3, 4] for _ in range(60)]
        documents = [NewDocument(["x"] * 20, d) for d in docs]
        write_documents(tmp_path / f"split={split}" / "a.parquet", documents, dtype="float32")
        if split == "train":
            train = np.concatenate(docs).astype(np.float32)
    return tmp_path, train


def fit(*words: object) -> int:
    return main(["lcm", "fit-normalizer", *map(str, words)])


@pytest.mark.filterwarnings("ignore::lexalcm.data.discover.DataWarning")
def test_statistics_facts_and_card_are_written(
    corpus: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, train = corpus
    file = tmp_path / "out" / "n.safetensors"
    assert fit(data, file) == 0
    center, scale, facts = load_normalizer_file(file, 5)
    low, median, high = np.quantile(train.astype(np.float64), (0.25, 0.5, 0.75), axis=0)
    np.testing.assert_allclose(center, median, rtol=1e-5)
    np.testing.assert_allclose(scale, np.where([1, 1, 0, 1, 1], 0.7413 * (high - low), 1.0), rtol=1e-5)
    assert facts["method"] == "robust" and facts["split"] == "train" and facts["dead_dims"] == [2]
    assert (facts["num_documents"], facts["num_concepts"], len(facts["files"])) == (60, 1200, 1)
    out, err = capsys.readouterr()
    assert "1,200 concepts of 60 documents in 1 file(s)" in out and "1 without spread: 2" in out
    assert "warning: 1 of 5 dimensions have no spread and get scale 1: 2." in err
    normalizer = load_model(file.with_suffix(".yaml"))
    np.testing.assert_array_equal(normalizer.center, center)
    np.testing.assert_array_equal(normalizer.scale, scale)


@pytest.mark.filterwarnings("ignore")
def test_method_and_split_are_honoured(corpus: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    data, train = corpus
    assert fit(data, tmp_path / "s.safetensors", "--method", "standard") == 0
    center, scale, facts = load_normalizer_file(tmp_path / "s.safetensors")
    np.testing.assert_allclose(center, train.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(scale[[0, 1, 3, 4]], train.std(axis=0)[[0, 1, 3, 4]], rtol=1e-4)
    assert facts["method"] == "standard"
    assert fit(data, tmp_path / "v.safetensors", "--split", "validation") == 0
    assert load_normalizer_file(tmp_path / "v.safetensors")[0].min() > 90.0
    assert fit(data, tmp_path / "a.safetensors", "--split", "all") == 0
    assert load_normalizer_file(tmp_path / "a.safetensors")[2]["num_documents"] == 120


def test_faults_write_nothing(
    corpus: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = corpus
    out = tmp_path / "out" / "n.safetensors"
    for words, message in (
        ((data, out, "--split", "trian"), "it has train, validation"),
        ((data, out, "--method", "robst"), 'Did you mean "robust"'),
        ((data, out, "--column", "emb"), "emb"),
        ((tmp_path / "nowhere", out), "nowhere"),
        ((data, out.with_suffix(".yaml")), "ends in .safetensors"),
    ):
        assert fit(*words) == 2
        assert message in capsys.readouterr().err
        assert not out.parent.exists()
