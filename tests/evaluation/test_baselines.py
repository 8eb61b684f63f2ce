from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lexalcm.errors import DataError
from lexalcm.evaluation.baselines import FittedBaselines, baseline_predictions, history_inputs
from lexalcm.evaluation.protocol import cut, retrieval_figures

REAL = Path(os.environ.get("LEXALCM_SHARED", Path(__file__).parents[2] / "../shared")) / "data/real_en_minilm384"


def corpus(seed: int = 0, num: int = 60, dim: int = 3) -> list[np.ndarray]:
    r = np.random.default_rng(seed)
    return [np.cumsum(r.normal(size=(r.integers(1, 9), dim)), axis=0).astype(np.float32) for _ in range(num)]


def test_history_inputs_are_the_last_four_the_mean_and_one() -> None:
    document = np.arange(1.0, 7.0)[:, None]
    assert history_inputs(document).tolist() == [
        [1, 0, 0, 0, 1, 1],
        [2, 1, 0, 0, 1.5, 1],
        [3, 2, 1, 0, 2, 1],
        [4, 3, 2, 1, 2.5, 1],
        [5, 4, 3, 2, 3, 1],
    ]


@pytest.mark.parametrize(("name", "columns"), [("ridge1", [0, 1, 2, 15]), ("ridge4", list(range(16)))])
def test_ridge_is_the_least_squares_solution_with_a_free_bias(name: str, columns: list[int]) -> None:
    train = corpus()
    inputs = np.concatenate([history_inputs(d) for d in train])[:, columns]
    targets = np.concatenate([d[1:] for d in train]).astype(np.float64)
    penalty = np.sqrt(10.0) * np.eye(len(columns))[:-1]
    weights = np.linalg.lstsq(
        np.concatenate([inputs, penalty]), np.concatenate([targets, np.zeros((len(penalty), 3))]), rcond=None
    )[0]
    document = corpus(seed=1)[0]
    predicted = FittedBaselines(train).predict(name, document)
    np.testing.assert_allclose(predicted, history_inputs(document)[:, columns] @ weights, atol=1e-9)


def test_fit_does_not_depend_on_how_rows_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    train, document = corpus(), corpus(seed=1)[0]
    whole = FittedBaselines(train).predict("ridge4", document)
    monkeypatch.setattr("lexalcm.evaluation.baselines._ROWS_PER_PRODUCT", 7)
    np.testing.assert_allclose(FittedBaselines(iter(train)).predict("ridge4", document), whole, atol=1e-10)


def test_mean_is_over_all_concepts_also_first_and_lonely_ones() -> None:
    train = [np.array([[1.0], [2.0]]), np.array([[9.0]])]
    fitted = FittedBaselines(train)
    assert fitted.predict("mean", np.zeros((3, 1))).tolist() == [[4.0], [4.0]]


def test_without_a_fit_only_copying_is_available() -> None:
    docs = corpus()[:3]
    assert baseline_predictions("ridge4", docs, None) is None
    copied = list(baseline_predictions("copy", docs, None))
    assert all(np.array_equal(c, d[:-1]) for c, d in zip(copied, docs))


def test_documents_of_one_concept_have_no_predictions() -> None:
    assert FittedBaselines(corpus()).predict("ridge4", np.ones((1, 3))).shape == (0, 3)


def test_data_without_a_pair_of_concepts_is_an_error() -> None:
    with pytest.raises(DataError, match="two concepts"):
        FittedBaselines([np.ones((1, 3))])


def test_published_figures_on_real_data_come_out() -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real corpus is not at {REAL}")
    from lexalcm.data.dataset import ConceptParquetDataset
    from lexalcm.data.sources import ConceptParquetConfig

    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(REAL)))

    def read(split: str) -> list[np.ndarray]:
        return list(cut(d.concepts for d in dataset.documents(split)))

    fitted, docs = FittedBaselines(read("train")), read("validation")
    wanted = {
        "copy": (0.3605, 0.2305, 0.6580),
        "mean": (0.1965, 0.0044, 0.0352),
        "ridge1": (0.4197, 0.2040, 0.6437),
        "ridge4": (0.4804, 0.2183, 0.7203),
    }
    for name, (cosine, at_1, at_10) in wanted.items():
        figures = retrieval_figures(baseline_predictions(name, docs, fitted), docs)
        assert figures.positions == 3632
        assert figures.cosine == pytest.approx(cosine, abs=6e-5)
        assert figures.acc_at_1_unseen == pytest.approx(at_1, abs=6e-5)
        assert figures.acc_at_10_unseen == pytest.approx(at_10, abs=6e-5)
