"""Sentences as points of a plane.

Shapes: N points, C dimensions.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_TSNE_DIMS: Final = 50
_PERPLEXITY: Final = 30.0
_TSNE_STEPS: Final = 500
_FEWEST_FOR_TSNE: Final = 8


def project(vectors: np.ndarray, method: str, *, seed: int) -> tuple[np.ndarray, str]:
    """
    :param vectors: float32 ``[N, C]``.
    :param method: ``pca`` or ``tsne``.
    :returns: float64 ``[N, 2]``, and a sentence that says what the picture keeps.
    """
    # scikit-learn's t-SNE crashes the process on points that are all the same.
    distinct, owner = np.unique(vectors, axis=0, return_inverse=True)
    if method == "tsne" and len(distinct) >= _FEWEST_FOR_TSNE:
        return _tsne(distinct, seed)[
            owner.reshape(-1)
        ], "t-SNE: near points are near in truth, far ones may be anything."
    plane, share = _pca(vectors, seed)
    kept = f" {share:.0%} of the variance is in this plane;" if np.isfinite(share) else ""
    return plane, f"PCA: the two directions of most variance.{kept} distances across the rest are lost."


def _pca(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """The plane ``[N, 2]``, and the share of the variance that is in it."""
    from sklearn.decomposition import PCA

    pca = PCA(min(2, *vectors.shape), svd_solver="randomized", random_state=seed)
    plane = np.zeros((len(vectors), 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        # One point, or points that are all the same, have no variance to share out.
        plane[:, : pca.n_components] = pca.fit_transform(vectors.astype(np.float64))
    return plane, float(pca.explained_variance_ratio_.sum())


def _tsne(vectors: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    dims = min(_TSNE_DIMS, *vectors.shape)
    reduced = PCA(dims, svd_solver="randomized", random_state=seed).fit_transform(vectors.astype(np.float64))
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 4)
    return TSNE(2, perplexity=perplexity, init="pca", max_iter=_TSNE_STEPS, random_state=seed).fit_transform(reduced)
