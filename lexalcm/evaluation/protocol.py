"""The protocol of next-concept prediction: which positions, which candidates, which figures.

Documents stand in file order and are cut to their first 128 concepts. Every position t >= 1 is one prediction. Each 16
documents in a row share one set of candidates, whatever the batches that a model ran on. Ranks are by cosine in
float64; a tie counts against the prediction, and a candidate equal to the truth in every component is no rival.

Shapes: T concepts of a document, M positions and A candidates of a group of documents, C dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Final

import numpy as np

from lexalcm.errors import DataError

MAX_CONCEPTS: Final = 128
DOCUMENTS_PER_GROUP: Final = 16


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Plain means over all positions, in float64."""

    documents: int
    positions: int
    candidates_mean: float

    cosine: float
    """Cosine of prediction and truth."""

    mse: float
    """Squared difference, mean over positions and components."""

    acc_at_1: float
    acc_at_10: float
    mrr: float

    acc_at_1_unseen: float
    """As ``acc_at_1``, the position's own history left out of the candidates: the figure to rank models by."""

    acc_at_10_unseen: float

    chance_at_1: float
    chance_at_10: float

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def cut(documents: Iterable[np.ndarray], *, max_concepts: int = MAX_CONCEPTS) -> Iterator[np.ndarray]:
    """Cuts documents ``[T, C]`` to what the protocol looks at."""
    return (document[:max_concepts] for document in documents)


def retrieval_figures(
    predictions: Iterable[np.ndarray], documents: Iterable[np.ndarray], source_lengths: Iterable[int] | None = None
) -> Figures:
    """Scores predictions document by document; both may be streams, and memory is that of 16 documents.

    :param predictions: For each document ``[T - 1, C]``, on the scale of the stored embeddings: row t - 1 predicts
        concept t. Documents of one concept, or none, have an empty one.
    :param documents: ``[T, C]`` as stored, any float type, already :func:`cut`.
    :param source_lengths: How many concepts at the start of each document are its source: no position in it counts.
    :raises DataError: NaN or infinity, shapes that do not belong together, or nothing to predict.
    """
    scorer = _Scorer()
    group: list[tuple[np.ndarray, np.ndarray, int]] = []
    sources = repeat(0) if source_lengths is None else source_lengths
    for (predicted, document), num_source in zip(zip(predictions, documents, strict=True), sources):
        _check(predicted, document, index=scorer.num_documents + len(group))
        group.append((predicted, document, num_source))
        if len(group) == DOCUMENTS_PER_GROUP:
            scorer.add(group)
            group = []
    if group:
        scorer.add(group)
    return scorer.figures()


def split_by_document(predictions: np.ndarray, documents: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Cuts the rows ``[N, C]`` of a predictions file into one array a document."""
    counts = [max(len(d) - 1, 0) for d in documents]
    if len(predictions) != sum(counts):
        raise DataError(
            f"these documents have {sum(counts)} positions to predict, but there are {len(predictions)} rows."
        )
    return np.split(predictions, np.cumsum(counts)[:-1])


def ranks_in_group(
    predicted_MC: np.ndarray, candidates_AC: np.ndarray, truth_M: np.ndarray, first_M: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks (1 is best) of the truth of each position by cosine: among all candidates, and among the unseen ones.

    :param predicted_MC: float64.
    :param candidates_AC: float64: all concepts of the group's documents, each once.
    :param truth_M: The row of the true concept among the candidates.
    :param first_M: The row of the first concept of its document. Rows from there up to the truth are its history.
    """
    _, identity_A = np.unique(candidates_AC, axis=0, return_inverse=True)
    identity_A = identity_A.reshape(-1)
    cosine_MA = _unit(predicted_MC) @ _unit(candidates_AC).T
    own_M1 = np.take_along_axis(cosine_MA, truth_M[:, None], axis=1)
    ahead_MA = (cosine_MA >= own_M1) & (identity_A[None, :] != identity_A[truth_M][:, None])
    row_A = np.arange(len(candidates_AC))
    seen_MA = (row_A[None, :] >= first_M[:, None]) & (row_A[None, :] < truth_M[:, None])
    return 1 + ahead_MA.sum(axis=1), 1 + (ahead_MA & ~seen_MA).sum(axis=1)


class _Scorer:
    def __init__(self) -> None:
        self.num_documents = 0
        self._columns: list[np.ndarray] = []

    def add(self, group: list[tuple[np.ndarray, np.ndarray, int]]) -> None:
        lengths = [len(document) for _, document, _ in group]
        starts = np.cumsum([0, *lengths[:-1]])
        self.num_documents += len(group)
        first_counted = [max(1, num_source) for _, _, num_source in group]
        truth_M = np.concatenate([np.arange(s + f, s + n) for s, f, n in zip(starts, first_counted, lengths)])
        if len(truth_M) == 0:
            return
        first_M = np.concatenate([np.full(max(n - f, 0), s) for s, f, n in zip(starts, first_counted, lengths)])
        candidates_AC = np.concatenate([document for _, document, _ in group]).astype(np.float64)
        counted = [p[f - 1 :] for (p, _, _), f in zip(group, first_counted)]
        predicted_MC = np.concatenate([p for p in counted if len(p)]).astype(np.float64)
        target_MC = candidates_AC[truth_M]
        rank_M, unseen_M = ranks_in_group(predicted_MC, candidates_AC, truth_M, first_M)
        cosine_M = (_unit(predicted_MC) * _unit(target_MC)).sum(axis=1)
        square_M = ((predicted_MC - target_MC) ** 2).mean(axis=1)
        count_M = np.full(len(truth_M), len(candidates_AC))
        self._columns.append(np.stack([cosine_M, square_M, rank_M, unseen_M, count_M]))

    def figures(self) -> Figures:
        if not self._columns:
            raise DataError("no document has two concepts or more, so there is nothing to predict.")
        cosine, square, rank, unseen, count = np.concatenate(self._columns, axis=1)
        return Figures(
            documents=self.num_documents,
            positions=len(rank),
            candidates_mean=float(count.mean()),
            cosine=float(cosine.mean()),
            mse=float(square.mean()),
            acc_at_1=float((rank <= 1).mean()),
            acc_at_10=float((rank <= 10).mean()),
            mrr=float((1 / rank).mean()),
            acc_at_1_unseen=float((unseen <= 1).mean()),
            acc_at_10_unseen=float((unseen <= 10).mean()),
            chance_at_1=float((1 / count).mean()),
            chance_at_10=float((10 / count).mean()),
        )


def _unit(x: np.ndarray) -> np.ndarray:
    # The cosine with an all-zero vector is defined as 0, so such a row stays as it is.
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def _check(predicted: np.ndarray, document: np.ndarray, *, index: int) -> None:
    wanted = max(len(document) - 1, 0)
    if predicted.shape[0] != wanted or (wanted and predicted.shape[1:] != document.shape[1:]):
        raise DataError(
            f"document {index} needs predictions of shape ({wanted}, {document.shape[-1]}), but they have"
            f" {tuple(predicted.shape)}."
        )
    if not np.isfinite(predicted).all():
        raise DataError(f"the predictions for document {index} hold NaN or infinity.")
