from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import yaml

from lexalcm.checkpoints.load import load_model
from lexalcm.checkpoints.normalizer_file import read_normalizer_file
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
    found, facts = read_normalizer_file(file, 5)
    center, scale = found.center, found.scale
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
    found, facts = read_normalizer_file(tmp_path / "s.safetensors")
    np.testing.assert_allclose(found.center, train.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.scale[[0, 1, 3, 4]], train.std(axis=0)[[0, 1, 3, 4]], rtol=1e-4)
    assert facts["method"] == "standard"
    assert fit(data, tmp_path / "v.safetensors", "--split", "validation") == 0
    assert read_normalizer_file(tmp_path / "v.safetensors")[0].center.min() > 90.0
    assert fit(data, tmp_path / "a.safetensors", "--split", "all") == 0
    assert read_normalizer_file(tmp_path / "a.safetensors")[1]["num_documents"] == 120


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_statistics_of_the_transform_with_bounds_load_through_their_card(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    concepts = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    write_documents(tmp_path / "split=train" / "a.parquet", [NewDocument(["x"] * 2000, concepts)], dtype="float32")
    file = tmp_path / f"n{suffix}"
    words = ("--method", "gaussian_robust", "--quantiles", 10, 90, "--arch", "clipping_fft", "--clip-proba", 0.01)
    assert fit(tmp_path, file, *words) == 0
    normalizer = load_model(file.with_suffix(".yaml"))
    assert normalizer.with_fft and normalizer.with_clipping
    spectrum = np.fft.rfft(concepts.astype(np.float64))
    frequencies = np.concatenate([spectrum.real, spectrum.imag[:, 1:-1]], axis=1)
    low, median, high = np.quantile(frequencies, (0.1, 0.5, 0.9), axis=0)
    scale = (high - low) / 2.5631031310892007
    np.testing.assert_allclose(normalizer.center, median, atol=1e-5)
    np.testing.assert_allclose(normalizer.scale, scale, rtol=1e-5)
    bounds = np.quantile((frequencies - median) / scale, (0.01, 0.99), axis=0)
    np.testing.assert_allclose(np.stack([normalizer.clip_min, normalizer.clip_max]), bounds, atol=1e-5)
    statistics, facts = read_normalizer_file(file, 6)
    if suffix == ".pt":
        assert statistics.with_fft is None and facts == {"dataset_mixture": [str(tmp_path)]}
    else:
        assert statistics.with_fft is True and facts["quantiles"] == [10.0, 90.0] and facts["clip_proba"] == 0.01
    told = f"normalizer.name={file.with_suffix('.yaml')}" if suffix == ".pt" else f"normalizer.path={file}"
    assert told in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_meta_compatible_takes_its_fractions_for_percentages(corpus: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    data, train = corpus
    file = tmp_path / "m.pt"
    assert fit(data, file, "--method", "meta_compatible") == 0
    low, median, high = np.percentile(train.astype(np.float64), (0.25, 50, 0.75), axis=0)
    normalizer = load_model(file.with_suffix(".yaml"))
    deviation = NormalDist().inv_cdf(0.0075) - NormalDist().inv_cdf(0.0025)
    spread = np.where(high > low, high - low, 1.0)
    np.testing.assert_allclose(normalizer.scale, spread / deviation, rtol=1e-5)
    np.testing.assert_allclose(normalizer.center, median, rtol=1e-5)
    card = yaml.safe_load(file.with_suffix(".yaml").read_text())
    assert card["model_config"] == {"dim": 5}, "all else is the reference's default"


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
        ((data, out.with_suffix(".yaml")), "ends in .safetensors or .pt"),
        ((data, out, "--arch", "clippping"), 'Did you mean "clipping"'),
        ((data, out, "--quantiles", 10, 90), "not to robust"),
        ((data, out, "--method", "range", "--quantiles", 90, 10), "ascending percentages"),
        ((data, out, "--clip-proba", 0.7), "clip_proba must lie between 0 and 0.5"),
        ((data, out, "--arch", "base_fft"), "even dimension, but they have 5"),
    ):
        assert fit(*words) == 2
        assert message in capsys.readouterr().err
        assert not out.parent.exists()
