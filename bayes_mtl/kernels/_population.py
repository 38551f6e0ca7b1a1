"""What the kernels share: how hyperparameters become the design of the Gaussian coefficients."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._lanes import BoolArray


@register_jitable
def feature_cholesky(sd: FloatArray, correlation: FloatArray, inside: IntArray) -> FloatArray:
    """Return L = diag(sd) C, with C the identity outside the task covariance."""
    L = np.zeros((sd.shape[0], sd.shape[0]))
    for p in range(sd.shape[0]):
        L[p, p] = sd[p]
    for x in range(inside.shape[0]):
        for y in range(x + 1):
            L[inside[x], inside[y]] = sd[inside[x]] * correlation[x, y]
    return L


@register_jitable
def add_gradient_of_cholesky(
    d_L: FloatArray,
    sd: FloatArray,
    correlation: FloatArray,
    inside: IntArray,
    d_sd: FloatArray,
    d_correlation: FloatArray,
) -> None:
    """Pull the derivative by L (its lower triangle) back to `sd` and `correlation`."""
    is_inside = membership(inside, sd.shape[0])
    for p in range(sd.shape[0]):
        if not is_inside[p]:
            d_sd[p] += d_L[p, p]
    for x in range(inside.shape[0]):
        for y in range(x + 1):
            entry = d_L[inside[x], inside[y]]
            d_sd[inside[x]] += entry * correlation[x, y]
            d_correlation[x, y] += entry * sd[inside[x]]


@register_jitable
def membership(inside: IntArray, n_varying: int) -> BoolArray:
    """Return which of the varying features are inside the task covariance."""
    found = np.zeros(n_varying, dtype=np.bool_)
    for x in range(inside.shape[0]):
        found[inside[x]] = True
    return found


@register_jitable
def structure(L: FloatArray, inside: IntArray, column: IntArray, n_columns: int, n_factors: int) -> BoolArray:
    """Return which entries of Z_t (F, A) may differ from zero; see `fill_design`."""
    n_common, n_inside = column.shape[0], inside.shape[0]
    active = np.zeros((n_columns, n_common + n_factors * n_inside), dtype=np.bool_)
    for c in range(n_common):
        active[column[c], c] = True
    for k in range(n_factors):
        for x in range(n_inside):
            for p in range(inside[x], L.shape[0]):
                active[p, n_common + k * n_inside + x] = L[p, inside[x]] != 0.0
    return active


@register_jitable
def fill_design(
    Z: FloatArray,
    L: FloatArray,
    loadings: FloatArray,
    inside: IntArray,
    column: IntArray,
    design: FloatArray,
    start: int,
    n: int,
) -> None:
    """Write what one unit of each common variable does to the coefficients of tasks start to start + n.

    Column c < C is design[c, t] at coefficient column[c]; column (k, x) is loadings[t, k] L_.x.
    """
    n_common, n_inside = column.shape[0], inside.shape[0]
    for c in range(n_common):
        for t in range(n):
            Z[column[c], c, t] = design[c, start + t]
    for k in range(loadings.shape[1]):
        for x in range(n_inside):
            j = n_common + k * n_inside + x
            for p in range(inside[x], L.shape[0]):
                for t in range(n):
                    Z[p, j, t] = loadings[start + t, k] * L[p, inside[x]]
