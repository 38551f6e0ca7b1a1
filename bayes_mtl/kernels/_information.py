"""What the pseudo-rows of a block of tasks say of their coefficients, and derivatives of that.

With the symbols of `_whitening`, task by task (last axis):

    H = R'R / s^2      b = R'y / s^2 - H mean      A = L S      W = I + A'H A = K K'
    Y = K^-1 A'H       y' = K^-1 A'b               G = H - Y'Y                 g = b - Y'y'
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._lanes import (
    BoolArray,
    cholesky_and_solve,
    pull_back_cholesky,
    solve_transposed,
    take_rows,
    times_lower,
)
from bayes_mtl.kernels.compile import allocating_subroutine


@allocating_subroutine
def inform(
    H: FloatArray,
    HA: FloatArray,
    W: FloatArray,
    K: FloatArray,
    Y: FloatArray,
    G: FloatArray,
    S: FloatArray,
    log_det: FloatArray,
    root: FloatArray,
    target: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    own: IntArray,
    L: FloatArray,
    start: int,
    n: int,
) -> bool:
    """Write H, H A, W (lower triangle), K, Y and G of tasks start to start + n, and log|K|.

    Beside H stands b, beside Y stands y', below G stands g. Returns whether every W is positive definite.
    """
    n_columns, n_own, n_varying, length = HA.shape[0], HA.shape[1], L.shape[0], HA.shape[2]
    R = np.empty((n_columns, n_columns + 1, length))
    HL = np.empty((n_columns, n_varying, length))
    centre = np.empty(length)
    precision = np.empty(length)
    for t in range(n):
        scale = sigma[start + t] if sigma.shape[0] > 1 else sigma[0]
        precision[t] = 1.0 / (scale * scale)
        log_det[t] = 0.0

    take_rows(R, root, target, start, n)
    for f in range(n_columns):
        for g in range(f, n_columns + 1):
            for t in range(n):
                centre[t] = 0.0
            for m in range(n_columns):
                for t in range(n):
                    centre[t] += R[m, f, t] * R[m, g, t]
            for t in range(n):
                H[f, g, t] = centre[t] * precision[t]
            if g < n_columns:
                for t in range(n):
                    H[g, f, t] = H[f, g, t]
    for g in range(n_columns):
        if mean.shape[0] == 1 and mean[0, g] == 0.0:
            continue
        for t in range(n):
            centre[t] = mean[start + t if mean.shape[0] > 1 else 0, g]
        for f in range(n_columns):
            for t in range(n):
                H[f, n_columns, t] -= H[f, g, t] * centre[t]

    times_lower(HL, H, L, n)
    for i in range(n_own):
        o = own[i]
        for t in range(n):
            Y[i, n_columns, t] = 0.0
        for p in range(o, n_varying):
            entry = L[p, o]
            for t in range(n):
                Y[i, n_columns, t] += entry * S[i, t] * H[p, n_columns, t]
        for f in range(n_columns):
            for t in range(n):
                HA[f, i, t] = HL[f, o, t] * S[i, t]
                Y[i, f, t] = HA[f, i, t]
        for j in range(i + 1):
            diagonal = 1.0 if i == j else 0.0
            for t in range(n):
                centre[t] = 0.0
            for p in range(o, n_varying):
                entry = L[p, o]
                for t in range(n):
                    centre[t] += entry * HA[p, j, t]
            for t in range(n):
                W[i, j, t] = diagonal + S[i, t] * centre[t]
                K[i, j, t] = W[i, j, t]
    if not cholesky_and_solve(K, Y, log_det, n):
        return False

    for f in range(n_columns):
        for t in range(n):
            G[n_columns, f, t] = H[f, n_columns, t]
        for i in range(n_own):
            for t in range(n):
                G[n_columns, f, t] -= Y[i, f, t] * Y[i, n_columns, t]
        for g in range(f + 1):
            for t in range(n):
                G[f, g, t] = H[f, g, t]
            for i in range(n_own):
                for t in range(n):
                    G[f, g, t] -= Y[i, f, t] * Y[i, g, t]
            for t in range(n):
                G[g, f, t] = G[f, g, t]
    return True


@allocating_subroutine
def pull_back_information(
    H: FloatArray,
    HA: FloatArray,
    K: FloatArray,
    Y: FloatArray,
    S: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    own: IntArray,
    L: FloatArray,
    is_inside: BoolArray,
    d_beta: FloatArray,
    d_G: FloatArray,
    d_g: FloatArray,
    d_Y: FloatArray,
    d_K: FloatArray,
    d_W: FloatArray,
    d_b: FloatArray,
    d_A: FloatArray,
    d_scale: FloatArray,
    d_L: FloatArray,
    d_unique: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    start: int,
    n: int,
) -> None:
    """Pull derivatives back to L, S, sigma and the means.

    d_G, d_g, d_beta are complete (beta contains the mean). What else uses Y (and y' beside it), the lower
    triangle of K, W (symmetric), b and A has been added to d_Y, d_K, d_W, d_b and d_A; what else uses H, as
    <H, d_H>, to d_scale, since H and b are multiples of 1 / s^2. All of these are overwritten.
    """
    n_columns, n_own, n_varying, length = HA.shape[0], HA.shape[1], L.shape[0], HA.shape[2]
    work = np.empty((n_own, n_own, length))
    found = np.empty(length)
    d_S = np.empty(length)

    # By way of G = H - Y'Y and g = b - Y'y'; then d_N = K^-T d_Y, for N = A'(H, b).
    for i in range(n_own):
        for f in range(n_columns):
            for t in range(n):
                d_Y[i, f, t] -= Y[i, n_columns, t] * d_g[f, t]
                d_Y[i, n_columns, t] -= Y[i, f, t] * d_g[f, t]
            for m in range(n_columns):
                for t in range(n):
                    d_Y[i, f, t] -= 2.0 * Y[i, m, t] * d_G[m, f, t]
    solve_transposed(K, d_Y, n)

    # d_K, by way of Y; then d_W.
    for i in range(n_own):
        for j in range(i + 1):
            for f in range(n_columns + 1):
                for t in range(n):
                    d_K[i, j, t] -= d_Y[i, f, t] * Y[j, f, t]
    pull_back_cholesky(K, d_K, work, n)
    for i in range(n_own):
        for j in range(n_own):
            for t in range(n):
                d_W[i, j, t] += d_K[i, j, t]

    # b, in g and in N; H, in G and in N (W follows below).
    for f in range(n_columns):
        for t in range(n):
            d_b[f, t] += d_g[f, t]
        for g in range(n_columns):
            for t in range(n):
                d_scale[t] += H[f, g, t] * d_G[f, g, t]
    for i in range(n_own):
        o = own[i]
        for p in range(o, n_varying):
            entry = L[p, o]
            for t in range(n):
                d_b[p, t] += entry * S[i, t] * d_Y[i, n_columns, t]
        for f in range(n_columns):
            for t in range(n):
                d_scale[t] += 0.5 * HA[f, i, t] * d_Y[i, f, t]
    for f in range(n_columns):
        for t in range(n):
            d_scale[t] += H[f, n_columns, t] * d_b[f, t]

    # A, in N and in W = I + A'H A.
    for i in range(n_own):
        o = own[i]
        for t in range(n):
            d_S[t] = 0.0
        for p in range(o, n_varying):
            entry = L[p, o]
            for t in range(n):
                found[t] = 0.0
            for m in range(n_own):
                for t in range(n):
                    found[t] += 2.0 * HA[p, m, t] * d_W[m, i, t]
            for f in range(n_columns):
                for t in range(n):
                    found[t] += H[p, f, t] * d_Y[i, f, t]
            total = 0.0
            for t in range(n):
                d_scale[t] += 0.5 * entry * S[i, t] * found[t]  # of W, once, and half of that of N
                found[t] += H[p, n_columns, t] * d_Y[i, n_columns, t] + d_A[p, i, t]
                d_S[t] += entry * found[t]
                total += S[i, t] * found[t]
            d_L[p, o] += total
        if is_inside[o]:
            for t in range(n):
                d_unique[start + t] += d_S[t]

    # b = R'y / s^2 - H mean, and beta = mean + ...
    total = 0.0
    for t in range(n):
        d_scale[t] *= -2.0 / (sigma[start + t] if sigma.shape[0] > 1 else sigma[0])
        total += d_scale[t]
    if sigma.shape[0] > 1:
        for t in range(n):
            d_sigma[start + t] = d_scale[t]
    else:
        d_sigma[0] += total
    for f in range(n_columns):
        for t in range(n):
            found[t] = d_beta[start + t, f]
        for g in range(n_columns):
            for t in range(n):
                found[t] -= H[f, g, t] * d_b[g, t]
        if mean.shape[0] > 1:
            for t in range(n):
                d_mean[start + t, f] = found[t]
        else:
            total = 0.0
            for t in range(n):
                total += found[t]
            d_mean[0, f] += total
