"""Coordinates in which one vector of related Gaussian effects looks like independent standard normals.

The equations are those of `_whitening` for one task without common variables. Its information H and moment h
are matrices of moderate size: with L = diag(sd) C,

    W = I + L'H L = K K'      q = K^-1 L'h      eps = K^-T (q + z)      gamma = L eps

    log p(eps) + log |d eps / dz| = -|eps|^2 / 2 - (number of z) log(2 pi) / 2 - log|K|.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.kernels._small_linalg import (
    add_multiple,
    cholesky_in_place,
    pull_back_cholesky_shared,
    solve_lower,
    solve_lower_transposed,
)
from bayes_mtl.kernels.compile import subroutine

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def forward(
    sd: FloatArray,
    correlation: FloatArray,
    z: FloatArray,
    information: FloatArray,
    moment: FloatArray,
    value: FloatArray,
    gamma: FloatArray,
) -> None:
    """Write the effects and the log density of their coordinates; where it is not finite, -inf and zeros.

    Parameters
    ----------
    sd, correlation : (C,), (C, C)
        The covariance of the effects is D C C'D, with D = diag(sd) and a lower triangular C.
    z : (C,)
        Coordinates.
    information, moment : (C, C), (C,)
        About what the data say: a quadratic -gamma'H gamma / 2 + h'gamma.
    value, gamma : (), (C,)
        Outputs.
    """
    n = sd.shape[0]
    L, LH, K, q, eps = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)), np.empty(n), np.empty(n)
    value[0] = _evaluate(sd, correlation, z, information, moment, L, LH, K, q, eps)
    gamma[:] = 0.0
    if value[0] > -np.inf:
        for i in range(n):
            for j in range(i + 1):
                gamma[i] += L[i, j] * eps[j]


def reverse(
    sd: FloatArray,
    correlation: FloatArray,
    z: FloatArray,
    information: FloatArray,
    moment: FloatArray,
    d_value: FloatArray,
    d_gamma: FloatArray,
    d_sd: FloatArray,
    d_correlation: FloatArray,
    d_z: FloatArray,
) -> None:
    """Pull cotangents of `forward`'s outputs back to its first three inputs.

    With e the cotangent of eps, a = K^-1 e that of z and b = K^-T a that of L'h, the cotangent of K is
    -eps a' - b q' (its lower triangle) besides that of its determinant, and W' that of W gives 2 H L W' to L.
    """
    n = sd.shape[0]
    d_sd[:] = 0.0
    d_correlation[:] = 0.0
    d_z[:] = 0.0
    L, LH, K, q, eps = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)), np.empty(n), np.empty(n)
    if not _evaluate(sd, correlation, z, information, moment, L, LH, K, q, eps) > -np.inf:
        return
    for j in range(n):
        d_z[j] = -d_value[0] * eps[j]
    for i in range(n):
        for j in range(i + 1):
            d_z[j] += L[i, j] * d_gamma[i]
    solve_lower(K, d_z)
    b = d_z.copy()
    solve_lower_transposed(K, b)
    d_W, d_L = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            d_W[i, j] = -eps[i] * d_z[j] - b[i] * q[j]
            d_L[i, j] = d_gamma[i] * eps[j] + moment[i] * b[j]
        d_W[i, i] -= d_value[0] / K[i, i]
    pull_back_cholesky_shared(K, d_W)
    for j in range(n):
        for i in range(n):
            add_multiple(d_L[i, : i + 1], d_W[j, : i + 1], 2.0 * LH[j, i])
    for i in range(n):
        for j in range(i + 1):
            d_sd[i] += d_L[i, j] * correlation[i, j]
            d_correlation[i, j] = d_L[i, j] * sd[i]


@subroutine
def _evaluate(
    sd: FloatArray,
    correlation: FloatArray,
    z: FloatArray,
    information: FloatArray,
    moment: FloatArray,
    L: FloatArray,
    LH: FloatArray,
    K: FloatArray,
    q: FloatArray,
    eps: FloatArray,
) -> float:
    """Return the value, and write L, L'H, K, q and eps into arrays of zeros; -inf where it is not finite."""
    n = sd.shape[0]
    for i in range(n):
        for j in range(i + 1):
            L[i, j] = sd[i] * correlation[i, j]
            if not abs(L[i, j]) < np.inf:
                return -np.inf
    q[:] = 0.0
    for i in range(n):
        for j in range(i + 1):
            entry = L[i, j]
            q[j] += entry * moment[i]
            if entry != 0.0:
                add_multiple(LH[j], information[i], entry)
    for j in range(n):
        for i in range(n):
            last = min(i, j) + 1
            add_multiple(K[j, :last], L[i, :last], LH[j, i])
        K[j, j] += 1.0
    if not cholesky_in_place(K):
        return -np.inf
    solve_lower(K, q)
    for j in range(n):
        eps[j] = q[j] + z[j]
    solve_lower_transposed(K, eps)
    value = -n * _HALF_LOG_2PI
    for j in range(n):
        value -= 0.5 * eps[j] * eps[j] + np.log(K[j, j])
    return value if abs(value) < np.inf else -np.inf
