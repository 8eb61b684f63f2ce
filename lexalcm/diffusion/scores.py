"""Proper scores of samples.

Shapes: S samples, N positions, C dimensions of a concept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lexalcm.errors import ConfigError


def energy_score(samples_SNC: Tensor, truth_NC: Tensor) -> Tensor:
    """Mean distance of the samples to the truth, minus half their mean distance to each other (Gneiting and Raftery
    2007).

    Lower is better; only the true distribution minimises it. One sample is a point prediction and scores its distance.

    :returns: ``[N]``, Euclidean.
    :raises ConfigError: No sample.
    """
    count = samples_SNC.size(0)
    if count == 0:
        raise ConfigError("An energy score needs at least one sample.")
    to_truth_N = torch.linalg.vector_norm(samples_SNC - truth_NC, dim=-1).mean(dim=0)
    if count == 1:
        return to_truth_N
    between_N = torch.zeros_like(to_truth_N)
    for shift in range(1, count):
        between_N = between_N + torch.linalg.vector_norm(samples_SNC - samples_SNC.roll(shift, 0), dim=-1).sum(dim=0)
    return to_truth_N - 0.5 * between_N / (count * (count - 1))
