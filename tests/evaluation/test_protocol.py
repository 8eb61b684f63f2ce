from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lexalcm.errors import DataError
from lexalcm.evaluation.protocol import cut, ranks_in_group, retrieval_figures, split_by_document

SHARED = Path(os.environ.get("LEXALCM_SHARED", Path(__file__).parents[2] / "../shared"))
REFERENCE = SHARED / "data/evaluate_reference.py"


def documents(lengths: list[int], dim: int = 12, seed: int = 0) -> list[np.ndarray]:
    r = np.random.default_rng(seed)
    return [r.normal(size=(n, dim)).astype(np.float16) for n in lengths]


def noisy_truth(docs: list[np.ndarray], noise: float, seed: int = 1) -> list[np.ndarray]:
    r = np.random.default_rng(seed)
    return [d[1:].astype(np.float32) + noise * r.normal(size=d[1:].shape) for d in docs]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    if not REFERENCE.is_file():
        pytest.skip(f"the reference evaluator is not at {REFERENCE}")
    spec = importlib.util.spec_from_file_location("evaluate_reference", REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_perfect_predictions_win_everything() -> None:
    docs = documents([3, 1, 5, 0, 2])
    figures = retrieval_figures([d[1:] for d in docs], docs)
    assert (figures.documents, figures.positions) == (5, 2 + 4 + 1)
    assert figures.candidates_mean == 11.0
    assert (figures.cosine, figures.mse) == (pytest.approx(1.0), 0.0)
    assert figures.acc_at_1 == figures.acc_at_1_unseen == figures.mrr == 1.0
    assert figures.chance_at_1 == pytest.approx(1 / 11)


def test_copying_never_ranks_first_unless_history_is_left_out() -> None:
    # Concept 2 lies near concept 1, so copying finds it once concept 1 itself is no candidate.
    docs = [np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.1]]), np.array([[0.0, 0.0, 1.0]])]
    figures = retrieval_figures([d[:-1] for d in docs], docs)
    # t = 1 predicts e0: cosines 1, 0, 0, 0, ties count against: rank 4 of all, 3 unseen. t = 2: rank 2, then 1.
    assert figures.acc_at_1 == 0.0 and figures.acc_at_1_unseen == 0.5
    assert figures.mrr == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_ties_count_against_and_a_zero_prediction_is_last() -> None:
    docs = documents([4, 4])
    figures = retrieval_figures([np.zeros((3, 12)), np.zeros((3, 12))], docs)
    assert figures.cosine == 0.0
    assert figures.mrr == pytest.approx(1 / 8)


def test_a_sentence_told_twice_is_no_rival_of_itself() -> None:
    candidates = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-0.0, 1.0], [0.0, 2.0]])
    rank, unseen = ranks_in_group(np.array([[0.0, 1.0]]), candidates, np.array([2]), np.array([0]))
    # Rows 1 and 3 equal the truth (-0 is 0); row 4 only points the same way and ties with it.
    assert (rank.tolist(), unseen.tolist()) == ([2], [2])


def test_sixteen_documents_share_candidates_whatever_the_stream() -> None:
    docs = documents([2] * 20)
    docs[18] = docs[0]  # an exact rival in the second group must not exist for the first
    figures = retrieval_figures(iter(noisy_truth(docs, 0.0)), iter(docs))
    assert figures.candidates_mean == pytest.approx((16 * 32 + 4 * 8) / 20)
    assert figures.acc_at_1 == 1.0


def test_cut_keeps_the_first_128_concepts() -> None:
    docs = documents([200, 5])
    assert [len(d) for d in cut(docs)] == [128, 5]
    assert np.array_equal(next(cut(docs)), docs[0][:128])


@pytest.mark.parametrize(
    ("predictions", "docs", "message"),
    [
        ([np.zeros((2, 3))], [np.zeros((2, 3))], r"document 0 .* \(1, 3\)"),
        ([np.zeros((1, 4))], [np.zeros((2, 3))], r"document 0 .* \(1, 3\)"),
        ([np.full((1, 3), np.nan)], [np.ones((2, 3))], "document 0 hold NaN"),
        ([np.zeros((0, 3))], [np.ones((1, 3))], "nothing to predict"),
        ([], [], "nothing to predict"),
    ],
)
def test_what_cannot_be_scored_is_an_error(predictions: list, docs: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        retrieval_figures(predictions, docs)


def test_rows_of_a_file_are_cut_by_document() -> None:
    docs = documents([3, 1, 2])
    rows = np.arange(3 * 12.0).reshape(3, 12)
    assert [len(p) for p in split_by_document(rows, docs)] == [2, 0, 1]
    with pytest.raises(DataError, match="3 positions .* 4 rows"):
        split_by_document(np.zeros((4, 12)), docs)


@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
def test_figures_equal_the_reference_evaluator(reference: ModuleType, noise: float) -> None:
    docs = documents([n % 13 + 1 for n in range(37)], seed=3)
    docs[5][2] = docs[5][1]
    docs[7][0] = 0.0
    docs[9][3] = 2 * docs[9][1]
    predictions = noisy_truth(docs, noise)
    predictions[4][0] = 0.0
    ours = retrieval_figures(predictions, docs).as_dict()
    theirs = reference.evaluate(np.concatenate(predictions), docs)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-12), name


def test_positions_in_a_source_do_not_count_and_remain_candidates_and_history() -> None:
    docs = documents([6, 5, 4])
    predicted = noisy_truth(docs, 0.8)
    whole, answers = retrieval_figures(predicted, docs), retrieval_figures(predicted, docs, [3, 0, 4])
    assert (answers.positions, answers.candidates_mean) == (3 + 4 + 0, whole.candidates_mean)
    # The same ranks as before, of fewer positions.
    spoilt = [p.copy() for p in predicted]
    spoilt[0][:2], spoilt[2][:] = 0.0, 0.0
    assert retrieval_figures(spoilt, docs, [3, 0, 4]) == answers
    ends = [np.concatenate([np.zeros((2, 12)), predicted[0][2:]]), predicted[1], np.zeros((3, 12))]
    assert retrieval_figures(ends, docs).acc_at_1 <= whole.acc_at_1
