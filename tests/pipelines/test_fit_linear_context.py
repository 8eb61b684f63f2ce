from __future__ import annotations

import numpy as np
import pytest
import torch

from lexalcm.errors import DataError
from lexalcm.evaluation.baselines import history_inputs
from lexalcm.models.pre1.config import Pre1Config
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.model import Pre1Model
from lexalcm.pipelines import fit_linear_context as module
from lexalcm.pipelines.fit_linear_context import fit_linear_context

DIM = 6


def model_with_path() -> Pre1Model:
    config = Pre1Config(concept_dim=DIM, model_dim=16, num_heads=2, ffn_dim=8, timestep_dim=4, linear_context=4)
    model = create_pre1_model(config)
    model.set_normalizer(center=torch.full((DIM,), 2.0), scale=torch.full((DIM,), 0.5))
    return model


def documents(seed: int = 0) -> list[np.ndarray]:
    r = np.random.default_rng(seed)
    return [(2.0 + 0.5 * r.normal(size=(n, DIM)).cumsum(axis=0)).astype(np.float32) for n in [9, 1, 14, 2, 30, 3]]


def solved(docs: list[np.ndarray], penalty: float) -> np.ndarray:
    """The normal equations in float64, with a bias that bears no penalty."""
    normalised = [(d.astype(np.float64) - 2.0) / 0.5 for d in docs]
    inputs = np.concatenate([history_inputs(d) for d in normalised])
    strength = np.diag([penalty] * (inputs.shape[1] - 1) + [0.0])
    targets = np.concatenate([d[1:] for d in normalised])
    return np.linalg.solve(inputs.T @ inputs + strength, inputs.T @ targets)[:-1].T


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_weights_are_the_ridge_solution_however_documents_are_chunked(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONCEPTS_PER_PRODUCT", chunk)
    model, docs = model_with_path(), documents()
    path = model.linear_path()
    assert path is not None
    assert fit_linear_context(model, path, iter(docs), penalty=3.0) == sum(len(d) - 1 for d in docs)
    np.testing.assert_allclose(path.proj.weight.detach().numpy(), solved(docs, 3.0), rtol=1e-4, atol=1e-5)


def test_documents_without_a_history_cannot_be_fitted() -> None:
    model = model_with_path()
    path = model.linear_path()
    assert path is not None
    with pytest.raises(DataError, match="no document of two concepts"):
        fit_linear_context(model, path, [np.zeros((1, DIM), np.float32)], penalty=1.0)
