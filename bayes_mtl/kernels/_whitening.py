"""Coordinates in which Gaussian coefficients look like standard normals, whatever the data say of them.

With the symbols of `_collapsed_gaussian`, and pseudo-rows R_t, y_t that say about what the data say of
beta_t (exactly for Gaussian outcomes; by a quadratic approximation from a pilot fit otherwise), coordinates
z, z_t that look standard normal become

    M = R L S / s      W = I + M'M = K K'      Y = K^-1 M'R / s      y' = K^-1 M'(y - R mean) / s
    G = R'R / s^2 - Y'Y                        g = R'(y - R mean) / s^2 - Y'y'
    Q = I + sum_t Z_t'G_t Z_t = U U'           h = sum_t Z_t'g_t
    alpha = U^-T (U^-1 h + z)                  eps_t = K^-T (y' - Y phi_t + z_t)          phi_t = Z_t alpha
    beta_t = mean_t + phi_t + L S eps_t

which are draws from the posterior if z is standard normal and the pseudo-rows are exact. As coordinates
they are exact whatever the pseudo-rows: log p(alpha, eps) + log |d(alpha, eps) / dz| is

    - (|alpha|^2 + sum_t |eps_t|^2 + (number of z) log(2 pi)) / 2 - log|U| - sum_t log|K_t|.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._lanes import (
    block_length,
    cholesky_and_solve,
    product,
    pull_back_cholesky,
    solve_transposed,
    times_shared,
    transposed_product,
)
from bayes_mtl.kernels._population import (
    add_gradient_of_cholesky,
    feature_cholesky,
    fill_design,
    membership,
    structure,
)
from bayes_mtl.kernels._small_linalg import (
    cholesky_in_place,
    pull_back_cholesky_shared,
    solve_lower,
    solve_lower_transposed,
)

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def forward(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    inside: IntArray,
    own: IntArray,
    column: IntArray,
    design: FloatArray,
    value: FloatArray,
    beta: FloatArray,
    alpha: FloatArray,
) -> None:
    """Write the coefficients, and the log density of their coordinates apart from the data's.

    Where that is not finite, the value is -inf and the coefficients are their means.

    Parameters
    ----------
    sd, correlation, loadings, unique_sd, sigma, mean, root, target, inside, column, design
        As in `_collapsed_gaussian.kernel`.
    z_common : (A,)
        Coordinates of the common variables: population effects, then factors.
    z : (T, U)
        Coordinates of each task's own deviation.
    own : (U,)
        Positions of the features in which tasks deviate on their own.
    value, beta, alpha : (), (T, F), (A,)
        Outputs.
    """
    n_tasks, n_columns, n_own, size = z.shape[0], root.shape[0], own.shape[0], z_common.shape[0]
    length = block_length(n_columns, n_columns, n_tasks)
    n_blocks = (n_tasks + length - 1) // length
    RL = np.empty((n_blocks, n_columns, n_own, length))
    K = np.empty((n_blocks, n_own, n_own, length))
    Y = np.empty((n_blocks, n_own, n_columns + 1, length))
    G = np.empty((n_blocks, n_columns, n_columns + 1, length))
    eps = np.empty((n_blocks, n_own, 1, length))
    U = np.empty((size, size))
    shifted = np.empty(size)
    value[0] = _evaluate(
        sd, correlation, loadings, unique_sd, sigma, mean, z_common, z, root, target, inside, own,
        column, design, RL, K, Y, G, eps, U, shifted, beta, alpha,
    )  # fmt: skip


def reverse(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    inside: IntArray,
    own: IntArray,
    column: IntArray,
    design: FloatArray,
    d_value: FloatArray,
    d_beta: FloatArray,
    d_alpha: FloatArray,
    d_sd: FloatArray,
    d_correlation: FloatArray,
    d_loadings: FloatArray,
    d_unique: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    d_z_common: FloatArray,
    d_z: FloatArray,
) -> None:
    """Pull cotangents of `forward`'s outputs back to its first eight inputs."""
    n_tasks, n_columns, n_own, size = z.shape[0], root.shape[0], own.shape[0], z_common.shape[0]
    n_varying, n_inside, n_common, n_factors = (
        sd.shape[0],
        inside.shape[0],
        column.shape[0],
        loadings.shape[1],
    )
    per_task_sigma, per_task_mean = sigma.shape[0] > 1, mean.shape[0] > 1
    length = block_length(n_columns, n_columns, n_tasks)
    n_blocks = (n_tasks + length - 1) // length
    RL = np.empty((n_blocks, n_columns, n_own, length))
    K = np.empty((n_blocks, n_own, n_own, length))
    Y = np.empty((n_blocks, n_own, n_columns + 1, length))
    G = np.empty((n_blocks, n_columns, n_columns + 1, length))
    eps = np.empty((n_blocks, n_own, 1, length))
    U = np.empty((size, size))
    shifted = np.empty(size)
    beta, alpha = np.empty((n_tasks, n_columns)), np.empty(size)
    d_sd[:] = 0.0
    d_correlation[:] = 0.0
    d_loadings[:] = 0.0
    d_unique[:] = 0.0
    d_sigma[:] = 0.0
    d_mean[:] = 0.0
    d_z_common[:] = 0.0
    d_z[:] = 0.0
    found = _evaluate(
        sd, correlation, loadings, unique_sd, sigma, mean, z_common, z, root, target, inside, own,
        column, design, RL, K, Y, G, eps, U, shifted, beta, alpha,
    )  # fmt: skip
    if not abs(found) < np.inf:
        return

    weight = d_value[0]
    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    active = structure(L, inside, column, n_columns, n_factors)
    Z = np.zeros((n_columns, size, length))
    d_L = np.zeros((n_varying, n_varying))
    d_Z = np.empty((n_columns, size, length))
    d_K = np.empty((n_own, n_own, length))
    d_Y = np.empty((n_own, n_columns + 1, length))
    d_G = np.empty((n_columns, n_columns, length))
    d_g = np.empty((n_columns, length))
    d_M = np.empty((n_columns, n_own, length))
    d_S = np.empty(length)
    S = np.empty((n_own, length))
    s = np.empty(length)
    phi = np.empty((n_columns, length))
    d_phi = np.empty((n_blocks, n_columns, length))
    d_w = np.empty((n_blocks, n_own, 1, length))
    work = np.empty((n_own, n_own, length))
    rows = np.empty((n_columns, n_columns + 1, length))
    d_rows = np.empty(length)
    GZ = np.empty((n_columns, size, length))
    ZQ = np.empty((n_columns, size, length))

    # From beta back to alpha: eps = K^-T w, w = y' - Y phi + z.
    d_a = d_alpha.copy()
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for u in range(n_own):
            for t in range(n):
                S[u, t] = unique_sd[start + t] if is_inside[own[u]] else 1.0
        for f in range(n_columns):
            for t in range(n):
                d_phi[block, f, t] = d_beta[start + t, f]
                d_mean[start + t if per_task_mean else 0, f] += d_beta[start + t, f]
        for u in range(n_own):
            for t in range(n):
                d_w[block, u, 0, t] = -weight * eps[block, u, 0, t]
                d_S[t] = 0.0
            for p in range(own[u], n_varying):
                entry = 0.0
                for t in range(n):
                    pull = d_beta[start + t, p] * eps[block, u, 0, t]
                    d_w[block, u, 0, t] += d_beta[start + t, p] * L[p, own[u]] * S[u, t]
                    d_S[t] += pull * L[p, own[u]]
                    entry += pull * S[u, t]
                d_L[p, own[u]] += entry
            if is_inside[own[u]]:
                for t in range(n):
                    d_unique[start + t] += d_S[t]
        # d_w = K^-1 d_eps
        for i in range(n_own):
            for m in range(i):
                for t in range(n):
                    d_w[block, i, 0, t] -= K[block, i, m, t] * d_w[block, m, 0, t]
            for t in range(n):
                d_w[block, i, 0, t] *= K[block, i, i, t]
                d_z[start + t, i] = d_w[block, i, 0, t]
            for f in range(n_columns):
                for t in range(n):
                    d_phi[block, f, t] -= Y[block, i, f, t] * d_w[block, i, 0, t]
        if size > 0:
            fill_design(Z, L, loadings, inside, column, design, start, n)
            for i in range(size):
                for f in range(n_columns):
                    if active[f, i]:
                        entry = 0.0
                        for t in range(n):
                            entry += Z[f, i, t] * d_phi[block, f, t]
                        d_a[i] += entry

    # From alpha back to Q and h: alpha = U^-T x, x = U^-1 h + z.
    d_h = np.zeros(size)
    d_Q = np.zeros((size, size))
    if size > 0:
        for i in range(size):
            d_a[i] -= weight * alpha[i]
        solve_lower(U, d_a)
        for i in range(size):
            d_z_common[i] = d_a[i]
            d_h[i] = d_a[i]
        solve_lower_transposed(U, d_h)
        for i in range(size):
            for j in range(i + 1):
                d_Q[i, j] = -alpha[i] * d_a[j] - d_h[i] * (shifted[j] - z_common[j])
            d_Q[i, i] -= weight / U[i, i]
        pull_back_cholesky_shared(U, d_Q)

    # From Q, h, eps and beta back to the hyperparameters, task by task.
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for t in range(n):
            s[t] = sigma[start + t] if per_task_sigma else sigma[0]
        for u in range(n_own):
            for t in range(n):
                S[u, t] = unique_sd[start + t] if is_inside[own[u]] else 1.0
        _scaled_rows(rows, root, target, mean, s, start, n)
        for f in range(n_columns):
            for t in range(n):
                phi[f, t] = 0.0
                d_g[f, t] = 0.0
            for g in range(n_columns):
                for t in range(n):
                    d_G[f, g, t] = 0.0
        if size > 0:
            fill_design(Z, L, loadings, inside, column, design, start, n)
            times_shared(ZQ, Z, d_Q, active, n)
            product(GZ, G[block], ZQ, np.ones(active.shape, dtype=np.bool_), n)
            for f in range(n_columns):
                for i in range(size):
                    if active[f, i]:
                        for t in range(n):
                            phi[f, t] += Z[f, i, t] * alpha[i]
                            d_g[f, t] += Z[f, i, t] * d_h[i]
                for g in range(n_columns):
                    for i in range(size):
                        if active[g, i]:
                            for t in range(n):
                                d_G[f, g, t] += ZQ[f, i, t] * Z[g, i, t]
                for i in range(n_common, size):
                    if active[f, i]:
                        for t in range(n):
                            d_Z[f, i, t] = (
                                d_phi[block, f, t] * alpha[i]
                                + 2.0 * GZ[f, i, t]
                                + G[block, f, n_columns, t] * d_h[i]
                            )
            for k in range(n_factors):
                for x in range(n_inside):
                    i = n_common + k * n_inside + x
                    for p in range(inside[x], n_varying):
                        if active[p, i]:
                            entry = 0.0
                            for t in range(n):
                                entry += d_Z[p, i, t] * loadings[start + t, k]
                                d_loadings[start + t, k] += d_Z[p, i, t] * L[p, inside[x]]
                            d_L[p, inside[x]] += entry

        # d_Y, by way of eps, G = R'R - Y'Y and g = R'y - Y'y'; then d_N = K^-T d_Y.
        for u in range(n_own):
            for g in range(n_columns):
                for t in range(n):
                    d_Y[u, g, t] = -d_w[block, u, 0, t] * phi[g, t]
                    d_Y[u, g, t] -= Y[block, u, n_columns, t] * d_g[g, t]
                for f in range(n_columns):
                    for t in range(n):
                        d_Y[u, g, t] -= 2.0 * Y[block, u, f, t] * d_G[f, g, t]
            for t in range(n):
                d_Y[u, n_columns, t] = d_w[block, u, 0, t]
            for f in range(n_columns):
                for t in range(n):
                    d_Y[u, n_columns, t] -= Y[block, u, f, t] * d_g[f, t]
        solve_transposed(K[block], d_Y, n)

        # d_K, from eps, Y and log|K|; then d_W.
        for i in range(n_own):
            for j in range(i + 1):
                for t in range(n):
                    d_K[i, j, t] = -eps[block, i, 0, t] * d_w[block, j, 0, t]
                for f in range(n_columns + 1):
                    for t in range(n):
                        d_K[i, j, t] -= d_Y[i, f, t] * Y[block, j, f, t]
            for t in range(n):
                d_K[i, i, t] -= weight * K[block, i, i, t]
        pull_back_cholesky(K[block], d_K, work, n)

        # M = R L S / s, in W = I + M'M and N = M'(R, y) / s.
        for f in range(n_columns):
            for u in range(n_own):
                for t in range(n):
                    d_M[f, u, t] = 0.0
                for m in range(n_own):
                    for t in range(n):
                        d_M[f, u, t] += 2.0 * RL[block, f, m, t] * S[m, t] * d_K[m, u, t]
                for g in range(n_columns + 1):
                    for t in range(n):
                        d_M[f, u, t] += rows[f, g, t] * d_Y[u, g, t]
        for u in range(n_own):
            for t in range(n):
                d_S[t] = 0.0
            for f in range(n_columns):
                for t in range(n):
                    d_S[t] += RL[block, f, u, t] * d_M[f, u, t]
            for t in range(n):
                if is_inside[own[u]]:
                    d_unique[start + t] += d_S[t]
                d_sigma[start + t if per_task_sigma else 0] -= S[u, t] * d_S[t] / s[t]
            for p in range(own[u], n_varying):
                entry = 0.0
                for f in range(n_columns):
                    for t in range(n):
                        entry += rows[f, p, t] * d_M[f, u, t] * S[u, t]
                d_L[p, own[u]] += entry

        # The pseudo-outcomes (y - R mean) / s and pseudo-rows R / s, for the mean and for s.
        for f in range(n_columns):
            for g in range(n_columns):
                for t in range(n):
                    d_rows[t] = rows[f, n_columns, t] * d_g[g, t]
                for m in range(n_columns):
                    for t in range(n):
                        d_rows[t] += 2.0 * rows[f, m, t] * d_G[m, g, t]
                for u in range(n_own):
                    for t in range(n):
                        d_rows[t] += RL[block, f, u, t] * S[u, t] * d_Y[u, g, t]
                for t in range(n):
                    d_sigma[start + t if per_task_sigma else 0] -= rows[f, g, t] * d_rows[t] / s[t]
            for t in range(n):
                d_rows[t] = 0.0
            for g in range(n_columns):
                for t in range(n):
                    d_rows[t] += rows[f, g, t] * d_g[g, t]
            for u in range(n_own):
                for t in range(n):
                    d_rows[t] += RL[block, f, u, t] * S[u, t] * d_Y[u, n_columns, t]
            for t in range(n):
                d_sigma[start + t if per_task_sigma else 0] -= rows[f, n_columns, t] * d_rows[t] / s[t]
            for g in range(n_columns):
                for t in range(n):
                    d_mean[start + t if per_task_mean else 0, g] -= rows[f, g, t] * d_rows[t]

    add_gradient_of_cholesky(d_L, sd, correlation, inside, d_sd, d_correlation)


@register_jitable
def _scaled_rows(
    rows: FloatArray,
    root: FloatArray,
    target: FloatArray,
    mean: FloatArray,
    s: FloatArray,
    start: int,
    n: int,
) -> None:
    """Write (R, y - R mean) / s of a block of tasks."""
    n_columns, per_task_mean = root.shape[0], mean.shape[0] > 1
    for f in range(n_columns):
        for t in range(n):
            rows[f, n_columns, t] = target[f, start + t] / s[t]
        for g in range(n_columns):
            for t in range(n):
                rows[f, g, t] = root[f, g, start + t] / s[t]
            if per_task_mean:
                for t in range(n):
                    rows[f, n_columns, t] -= rows[f, g, t] * mean[start + t, g]
            elif mean[0, g] != 0.0:
                for t in range(n):
                    rows[f, n_columns, t] -= rows[f, g, t] * mean[0, g]


@register_jitable
def _evaluate(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    inside: IntArray,
    own: IntArray,
    column: IntArray,
    design: FloatArray,
    RL: FloatArray,
    K: FloatArray,
    Y: FloatArray,
    G: FloatArray,
    eps: FloatArray,
    U: FloatArray,
    shifted: FloatArray,
    beta: FloatArray,
    alpha: FloatArray,
) -> float:
    """Return the value; keep everything that the reverse sweep needs.

    `shifted` is U^-1 h + z. R L / s, K, Y beside y', G beside g, and eps are kept in blocks of tasks.
    """
    n_tasks, n_columns, n_own, size = z.shape[0], root.shape[0], own.shape[0], z_common.shape[0]
    n_varying, n_factors = sd.shape[0], loadings.shape[1]
    per_task_sigma, per_task_mean = sigma.shape[0] > 1, mean.shape[0] > 1
    length, n_blocks = K.shape[3], K.shape[0]
    for t in range(n_tasks):
        for f in range(n_columns):
            beta[t, f] = mean[t if per_task_mean else 0, f]
    alpha[:] = 0.0
    total = sd.sum() + correlation.sum() + loadings.sum() + unique_sd.sum() + mean.sum() + sigma.sum()
    total += z.sum() + z_common.sum()
    if not (abs(total) < np.inf and sigma.min() > 0.0):
        return -np.inf

    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    active = structure(L, inside, column, n_columns, n_factors)
    Z = np.zeros((n_columns, size, length))
    GZ = np.empty((n_columns, size, length))
    M = np.empty((n_columns, n_own, length))
    rows = np.empty((n_columns, n_columns + 1, length))
    s = np.empty(length)
    log_det = np.empty(length)
    U[:] = 0.0
    shifted[:] = 0.0
    for i in range(size):
        U[i, i] = 1.0
    value = -(size + n_tasks * n_own) * _HALF_LOG_2PI
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for t in range(n):
            s[t] = sigma[start + t] if per_task_sigma else sigma[0]
            log_det[t] = 0.0
        _scaled_rows(rows, root, target, mean, s, start, n)
        for u in range(n_own):
            for f in range(n_columns):
                for t in range(n):
                    RL[block, f, u, t] = 0.0
                for p in range(own[u], n_varying):
                    if L[p, own[u]] != 0.0:
                        for t in range(n):
                            RL[block, f, u, t] += rows[f, p, t] * L[p, own[u]]
                if is_inside[own[u]]:
                    for t in range(n):
                        M[f, u, t] = RL[block, f, u, t] * unique_sd[start + t]
                else:
                    for t in range(n):
                        M[f, u, t] = RL[block, f, u, t]
        transposed_product(K[block], M, M, n)
        for u in range(n_own):
            for t in range(n):
                K[block, u, u, t] += 1.0
        transposed_product(Y[block], M, rows, n)
        if not cholesky_and_solve(K[block], Y[block], log_det, n):
            return -np.inf
        for t in range(n):
            value -= log_det[t]
        for f in range(n_columns):
            for g in range(n_columns + 1):
                for t in range(n):
                    G[block, f, g, t] = 0.0
                for m in range(n_columns):
                    for t in range(n):
                        G[block, f, g, t] += rows[m, f, t] * rows[m, g, t]
                for u in range(n_own):
                    for t in range(n):
                        G[block, f, g, t] -= Y[block, u, f, t] * Y[block, u, g, t]
        if size > 0:
            fill_design(Z, L, loadings, inside, column, design, start, n)
            product(GZ, G[block], Z, active, n)
            for i in range(size):
                for f in range(n_columns):
                    if active[f, i]:
                        entry = 0.0
                        for t in range(n):
                            entry += Z[f, i, t] * G[block, f, n_columns, t]
                        shifted[i] += entry
                        for j in range(i + 1):
                            entry = 0.0
                            for t in range(n):
                                entry += Z[f, i, t] * GZ[f, j, t]
                            U[i, j] += entry

    if size > 0:
        if not cholesky_in_place(U):
            return -np.inf
        solve_lower(U, shifted)
        for i in range(size):
            shifted[i] += z_common[i]
            alpha[i] = shifted[i]
            value -= np.log(U[i, i])
        solve_lower_transposed(U, alpha)
        for i in range(size):
            value -= 0.5 * alpha[i] * alpha[i]

    phi = np.zeros((n_columns, length))
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        if size > 0:
            fill_design(Z, L, loadings, inside, column, design, start, n)
            for f in range(n_columns):
                for t in range(n):
                    phi[f, t] = 0.0
                for i in range(size):
                    if active[f, i]:
                        for t in range(n):
                            phi[f, t] += Z[f, i, t] * alpha[i]
                for t in range(n):
                    beta[start + t, f] += phi[f, t]
        for u in range(n_own):
            for t in range(n):
                eps[block, u, 0, t] = Y[block, u, n_columns, t] + z[start + t, u]
            for f in range(n_columns):
                for t in range(n):
                    eps[block, u, 0, t] -= Y[block, u, f, t] * phi[f, t]
        solve_transposed(K[block], eps[block], n)
        for u in range(n_own):
            for t in range(n):
                value -= 0.5 * eps[block, u, 0, t] ** 2
            for p in range(own[u], n_varying):
                if is_inside[own[u]]:
                    for t in range(n):
                        beta[start + t, p] += L[p, own[u]] * unique_sd[start + t] * eps[block, u, 0, t]
                else:
                    for t in range(n):
                        beta[start + t, p] += L[p, own[u]] * eps[block, u, 0, t]
    return value if abs(value) < np.inf else -np.inf
