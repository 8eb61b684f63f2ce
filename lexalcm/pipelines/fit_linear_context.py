"""Starts a model's linear path at the ridge regression of concepts on what precedes them.

Shapes: N concepts of a packed chunk, C concept_dim, F features of the path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from lexalcm.errors import DataError
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.linear_context import LinearContext

_CONCEPTS_PER_PRODUCT = 4096


@torch.no_grad()
def fit_linear_context(
    model: TwoTowerModel, path: LinearContext, documents: Iterable[np.ndarray], *, penalty: float
) -> int:
    """Sets ``path`` to the solution, in the model's normalised space, with a free bias that is left to the network.

    One pass; memory is that of the normal equations, 8 (F + 1) (F + C + 1) bytes.

    :param path: The linear path of ``model``.
    :param documents: Raw concepts ``[T, C]`` in windows as the model is trained on.
    :param penalty: Of the squared weights, beside errors summed over all positions.
    :returns: The number of positions with a history.
    :raises DataError: There is none.
    """
    weight = path.proj.weight
    num_features = path.proj.in_features + 1
    gram = weight.new_zeros(num_features, num_features, dtype=torch.float64)
    moment = weight.new_zeros(num_features, model.concept_dim, dtype=torch.float64)
    count = 0
    for chunk in _chunks(documents):
        layout = DocumentLayout([len(d) for d in chunk])
        layout.to(weight.device)
        concepts = model.normalize(torch.from_numpy(np.concatenate(chunk)).to(weight.device))
        later = layout.positions > 0
        features, targets = path.features(concepts, layout)[later], concepts[later]
        features = torch.nn.functional.pad(features, (0, 1), value=1.0)
        # A product of a few thousand rows is exact enough in float32, and many times faster.
        gram += features.T @ features
        moment += features.T @ targets
        count += len(targets)
    if count == 0:
        raise DataError("The data for `linear_context.fit` has no document of two concepts or more.")
    diagonal = gram.diagonal()
    diagonal[:-1] += penalty
    solution: Tensor = torch.linalg.solve(gram, moment)
    weight.copy_(solution[:-1].T)
    return count


def _chunks(documents: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    held: list[np.ndarray] = []
    num_concepts = 0
    for document in documents:
        held.append(document)
        num_concepts += len(document)
        if num_concepts >= _CONCEPTS_PER_PRODUCT:
            yield held
            held, num_concepts = [], 0
    if held:
        yield held
