"""The correlation of the features inside a task covariance, registered once for all kinds of blocks."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import IntArray, Tensor
from bayes_mtl.kernels import product
from bayes_mtl.model.coords import FEATURE_FACTOR, bis
from bayes_mtl.structures import FeatureCovariance, Namer


def feature_correlation(
    covariance: FeatureCovariance, inside: IntArray, n_features: int, dim: str, name: Namer
) -> Tensor:
    """Register the correlation R, and return its Cholesky factor (n_inside, n_inside).

    Parameters
    ----------
    inside : ndarray of int
        Positions of the correlated features. The others are independent: they have no loadings.
    n_features : int
    dim : str
        Dim of all features.
    name : Namer
    """
    n_inside = len(inside)
    found = covariance.feature_loadings(n_inside, name)
    if found is None:
        cholesky = covariance.correlation_cholesky(n_inside, name)
    else:
        assert found.loadings is not None
        assert found.unique_sd is not None
        loadings = found.loadings
        cholesky = pt.linalg.cholesky(product(loadings, loadings.T) + pt.diag(found.unique_sd**2))
        whole = loadings
        if n_inside < n_features:
            whole = product(pt.as_tensor_variable(np.eye(n_features)[:, inside]), loadings)
        pm.Deterministic(name("feature_loadings"), whole, dims=(dim, name(FEATURE_FACTOR)))
    if cholesky is None:
        return pt.eye(n_inside)
    whole = embed(cholesky, inside, n_features) if n_inside < n_features else cholesky
    pm.Deterministic(name("feature_corr"), whole @ whole.T, dims=(dim, bis(dim)))
    return cholesky


def embed(block: Tensor, at: IntArray, size: int) -> Tensor:
    """Return the identity of the given size with `block` at these rows and columns."""
    if not len(at):
        return pt.eye(size)
    first, last = int(at[0]), int(at[-1]) + 1
    if last - first == len(at):
        return pt.set_subtensor(pt.eye(size)[first:last, first:last], block)
    return pt.set_subtensor(pt.eye(size)[np.ix_(at, at)], block)
