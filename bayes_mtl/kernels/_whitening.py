"""Coordinates in which Gaussian coefficients look like standard normals, whatever the data say of them.

With the symbols of `_collapsed_gaussian`, and pseudo-rows R_t, y_t that say about what the data say of
beta_t (exactly for Gaussian outcomes; by a quadratic approximation from a pilot fit otherwise), coordinates
z, z_t that look standard normal become

    H = R'R / s^2      b = R'y / s^2 - H mean      A = L S
    W = I + A'H A = K K'      Y = K^-1 A'H      y' = K^-1 A'b      G = H - Y'Y      g = b - Y'y'
    Q = I + sum_t Z_t'G_t Z_t = U U'                           h = sum_t Z_t'g_t
    alpha = U^-T (U^-1 h + z)                  eps_t = K^-T (y' - Y phi_t + z_t)          phi_t = Z_t alpha
    beta_t = mean_t + phi_t + A_t eps_t

which are draws from the posterior if z is standard normal and the pseudo-rows are exact. As coordinates
they are exact whatever the pseudo-rows: log p(alpha, eps) + log |d(alpha, eps) / dz| is

    - (|alpha|^2 + sum_t |eps_t|^2 + (number of z) log(2 pi)) / 2 - log|U| - sum_t log|K_t|.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._information import inform, pull_back_information
from bayes_mtl.kernels._lanes import block_length, solve_transposed, take, weighted_sum
from bayes_mtl.kernels._population import (
    add_gradient_of_cholesky,
    add_information,
    add_product_with_loadings,
    apply_design,
    feature_cholesky,
    membership,
    mix_factors,
    project,
    pull_back_common,
    pull_back_effect_scale,
    pull_back_factors,
    scaled,
    solve_common,
    spread,
)
from bayes_mtl.kernels.compile import allocating_subroutine

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def forward(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
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
    sd, correlation, loadings, unique_sd, sigma, mean, effect_scale, root, target, inside, column, design
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
    n_inside, n_common, n_factors = inside.shape[0], column.shape[0], loadings.shape[1]
    length = block_length(n_columns, n_columns, n_tasks)
    n_blocks = (n_tasks + length - 1) // length
    H = np.empty((n_blocks, n_columns, n_columns + 1, length))
    HA = np.empty((n_blocks, n_columns, n_own, length))
    K = np.empty((n_blocks, n_own, n_own, length))
    Y = np.empty((n_blocks, n_own, n_columns + 1, length))
    G = np.empty((n_blocks, n_columns + 1, n_columns, length))
    GL = np.empty((n_blocks, n_columns, n_inside, length))
    LGL = np.empty((n_blocks, n_inside, n_inside, length))
    lam = np.empty((n_blocks, n_factors, length))
    effects = np.empty((n_blocks, n_common, length))
    S = np.empty((n_blocks, n_own, length))
    phi = np.empty((n_blocks, n_columns, length))
    eps = np.empty((n_blocks, n_own, 1, length))
    U = np.empty((size, size))
    shifted = np.empty(size)
    value[0] = _evaluate(
        sd, correlation, loadings, unique_sd, sigma, mean, effect_scale, z_common, z, root, target, inside,
        own, column, design, H, HA, K, Y, G, GL, LGL, lam, effects, S, phi, eps, U, shifted, beta, alpha,
    )  # fmt: skip


def reverse(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
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
    d_effect_scale: FloatArray,
    d_z_common: FloatArray,
    d_z: FloatArray,
) -> None:
    """Pull cotangents of `forward`'s outputs back to its first nine inputs."""
    n_tasks, n_columns, n_own, size = z.shape[0], root.shape[0], own.shape[0], z_common.shape[0]
    n_inside, n_common, n_factors = inside.shape[0], column.shape[0], loadings.shape[1]
    length = block_length(n_columns, n_columns, n_tasks)
    n_blocks = (n_tasks + length - 1) // length
    H = np.empty((n_blocks, n_columns, n_columns + 1, length))
    HA = np.empty((n_blocks, n_columns, n_own, length))
    K = np.empty((n_blocks, n_own, n_own, length))
    Y = np.empty((n_blocks, n_own, n_columns + 1, length))
    G = np.empty((n_blocks, n_columns + 1, n_columns, length))
    GL = np.empty((n_blocks, n_columns, n_inside, length))
    LGL = np.empty((n_blocks, n_inside, n_inside, length))
    lam = np.empty((n_blocks, n_factors, length))
    effects = np.empty((n_blocks, n_common, length))
    S = np.empty((n_blocks, n_own, length))
    phi = np.empty((n_blocks, n_columns, length))
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
    d_effect_scale[:] = 0.0
    d_z_common[:] = 0.0
    d_z[:] = 0.0
    found = _evaluate(
        sd, correlation, loadings, unique_sd, sigma, mean, effect_scale, z_common, z, root, target, inside,
        own, column, design, H, HA, K, Y, G, GL, LGL, lam, effects, S, phi, eps, U, shifted, beta, alpha,
    )  # fmt: skip
    if not abs(found) < np.inf:
        return

    weight = d_value[0]
    n_varying = sd.shape[0]
    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    d_L = np.zeros((n_varying, n_varying))
    d_phi = np.empty((n_blocks, n_columns, length))
    d_w = np.empty((n_blocks, n_own, 1, length))
    pulled = np.empty(length)
    moved = np.zeros(n_common)  # Z'd_phi, of the effects of the population

    # From beta back to alpha: eps = K^-T w, w = y' - Y phi + z.
    d_alpha = d_alpha.copy()
    for i in range(size):
        d_alpha[i] -= weight * alpha[i]
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for f in range(n_columns):
            for t in range(n):
                d_phi[block, f, t] = d_beta[start + t, f]
        for u in range(n_own):
            o = own[u]
            for t in range(n):
                d_w[block, u, 0, t] = -weight * eps[block, u, 0, t]
            for p in range(o, n_varying):
                entry = L[p, o]
                for t in range(n):
                    d_w[block, u, 0, t] += entry * S[block, u, t] * d_phi[block, p, t]
        # d_w = K^-1 d_eps; d_phi, still d_beta so far, changes from here on.
        for i in range(n_own):
            for m in range(i):
                for t in range(n):
                    d_w[block, i, 0, t] -= K[block, i, m, t] * d_w[block, m, 0, t]
            for t in range(n):
                d_w[block, i, 0, t] *= K[block, i, i, t]
            for f in range(n_columns):
                for t in range(n):
                    d_phi[block, f, t] -= Y[block, i, f, t] * d_w[block, i, 0, t]
            for t in range(n):
                d_z[start + t, i] = d_w[block, i, 0, t]
        for c in range(n_common):
            moved[c] += weighted_sum(effects[block, c], d_phi[block, column[c]], n)
        for x in range(n_inside):
            for t in range(n):
                pulled[t] = 0.0
            for p in range(inside[x], n_varying):
                entry = L[p, inside[x]]
                for t in range(n):
                    pulled[t] += entry * d_phi[block, p, t]
            for k in range(n_factors):
                d_alpha[n_common + k * n_inside + x] += weighted_sum(lam[block, k], pulled, n)

    for c in range(n_common):
        d_alpha[c] += moved[c]

    # From alpha back to Q and h: alpha = U^-T x, x = U^-1 h + z.
    d_h = np.zeros(size)
    d_Q = np.zeros((size, size))
    pull_back_common(U, shifted, z_common, alpha, weight, d_alpha, d_z_common, d_h, d_Q)
    pull_back_effect_scale(U, shifted, z_common, alpha, moved, d_h, d_Q, effect_scale, d_effect_scale)

    # From Q, h, eps and beta back to the hyperparameters, task by task.
    ZQ = np.empty((n_columns, n_inside, length))
    u_factors = np.empty((n_inside, length))
    d_lam = np.empty((n_factors, length))
    d_G = np.empty((n_columns, n_columns, length))
    d_g = np.empty((n_columns, length))
    d_Y = np.empty((n_own, n_columns + 1, length))
    d_K = np.empty((n_own, n_own, length))
    d_W = np.empty((n_own, n_own, length))
    d_b = np.empty((n_columns, length))
    d_A = np.empty((n_varying, n_own, length))
    d_scale = np.empty(length)
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for k in range(n_factors):
            for t in range(n):
                d_lam[k, t] = 0.0
        # d_G = Z d_Q Z' and d_g = Z d_h; Z by d_phi alpha' + 2 G Z d_Q + g d_h'.
        spread(
            ZQ, d_G, d_lam, d_Q, GL[block], LGL[block], lam[block], L, inside, column, effects[block], 2.0, n
        )
        mix_factors(u_factors, lam[block], d_h, n)
        apply_design(d_g, u_factors, L, inside, d_h, column, effects[block], n)
        if n_factors > 0:
            pull_back_factors(d_lam, d_L, G[block, n_columns], u_factors, L, inside, d_h, pulled, n)
            mix_factors(u_factors, lam[block], alpha, n)
            pull_back_factors(d_lam, d_L, d_phi[block], u_factors, L, inside, alpha, pulled, n)
            add_product_with_loadings(d_L, G[block], ZQ, inside, 2.0, n)

        # eps = K^-T (y' - Y phi + z), log|K|, and beta = ... + A eps.
        for f in range(n_columns):
            for t in range(n):
                d_b[f, t] = 0.0
        for t in range(n):
            d_scale[t] = 0.0
        for i in range(n_own):
            for f in range(n_columns):
                for t in range(n):
                    d_Y[i, f, t] = -d_w[block, i, 0, t] * phi[block, f, t]
            for t in range(n):
                d_Y[i, n_columns, t] = d_w[block, i, 0, t]
            for j in range(n_own):
                for t in range(n):
                    d_W[i, j, t] = 0.0
                    d_K[i, j, t] = -eps[block, i, 0, t] * d_w[block, j, 0, t]
            for t in range(n):
                d_K[i, i, t] -= weight * K[block, i, i, t]
            for p in range(own[i], n_varying):
                for t in range(n):
                    d_A[p, i, t] = d_beta[start + t, p] * eps[block, i, 0, t]
        pull_back_information(
            H[block], HA[block], K[block], Y[block], S[block], sigma, mean, own, L, is_inside, d_beta,
            d_G, d_g, d_Y, d_K, d_W, d_b, d_A, d_scale, d_L, d_unique, d_sigma, d_mean, start, n,
        )  # fmt: skip
        for k in range(n_factors):
            for t in range(n):
                d_loadings[start + t, k] = d_lam[k, t]

    add_gradient_of_cholesky(d_L, sd, correlation, inside, d_sd, d_correlation)


@allocating_subroutine
def _evaluate(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    inside: IntArray,
    own: IntArray,
    column: IntArray,
    design: FloatArray,
    H: FloatArray,
    HA: FloatArray,
    K: FloatArray,
    Y: FloatArray,
    G: FloatArray,
    GL: FloatArray,
    LGL: FloatArray,
    lam: FloatArray,
    effects: FloatArray,
    S: FloatArray,
    phi: FloatArray,
    eps: FloatArray,
    U: FloatArray,
    shifted: FloatArray,
    beta: FloatArray,
    alpha: FloatArray,
) -> float:
    """Return the value; keep what the reverse sweep needs, in blocks of tasks.

    Beside H stands b, beside Y stands y', below G stands g; `shifted` is U^-1 h + z.
    """
    n_tasks, n_columns, n_own, size = z.shape[0], root.shape[0], own.shape[0], z_common.shape[0]
    n_varying, n_factors, n_inside = sd.shape[0], loadings.shape[1], inside.shape[0]
    per_task_mean = mean.shape[0] > 1
    length, n_blocks = K.shape[3], K.shape[0]
    for t in range(n_tasks):
        for f in range(n_columns):
            beta[t, f] = mean[t if per_task_mean else 0, f]
    alpha[:] = 0.0
    total = sd.sum() + correlation.sum() + loadings.sum() + unique_sd.sum() + mean.sum() + sigma.sum()
    total += z.sum() + z_common.sum() + effect_scale.sum()
    if not (abs(total) < np.inf and sigma.min() > 0.0):
        return -np.inf

    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    W = np.empty((n_own, n_own, length))
    Lg = np.empty((n_inside, length))
    u_factors = np.empty((n_inside, length))
    centre = np.empty(length)
    log_det = np.empty(length)
    U[:] = 0.0
    shifted[:] = 0.0
    for i in range(size):
        U[i, i] = 1.0
    value = -(size + n_tasks * n_own) * _HALF_LOG_2PI
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for c in range(effects.shape[1]):
            scaled(effects[block, c], design[c], effect_scale[c], start, n)
        for k in range(n_factors):
            for t in range(n):
                lam[block, k, t] = loadings[start + t, k]
        for i in range(n_own):
            if is_inside[own[i]]:
                take(S[block, i], unique_sd, start, n)
            else:
                for t in range(n):
                    S[block, i, t] = 1.0

        if not inform(
            H[block], HA[block], W, K[block], Y[block], G[block], S[block], log_det,
            root, target, sigma, mean, own, L, start, n,
        ):  # fmt: skip
            return -np.inf
        for t in range(n):
            value -= log_det[t]
        if n_factors > 0:
            project(GL[block], LGL[block], Lg, G[block], G[block, n_columns], L, inside, n)
        add_information(
            U,
            shifted,
            G[block],
            G[block, n_columns],
            GL[block],
            LGL[block],
            Lg,
            lam[block],
            column,
            effects[block],
            centre,
            n,
        )

    common = solve_common(U, shifted, z_common, alpha)
    if not abs(common) < np.inf:
        return -np.inf
    value += common

    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        mix_factors(u_factors, lam[block], alpha, n)
        apply_design(phi[block], u_factors, L, inside, alpha, column, effects[block], n)
        for i in range(n_own):
            for t in range(n):
                eps[block, i, 0, t] = Y[block, i, n_columns, t] + z[start + t, i]
            for f in range(n_columns):
                for t in range(n):
                    eps[block, i, 0, t] -= Y[block, i, f, t] * phi[block, f, t]
        solve_transposed(K[block], eps[block], n)
        for f in range(n_columns):
            for t in range(n):
                centre[t] = phi[block, f, t]
            for i in range(n_own):
                if own[i] <= f < n_varying:
                    entry = L[f, own[i]]
                    for t in range(n):
                        centre[t] += entry * S[block, i, t] * eps[block, i, 0, t]
            for t in range(n):
                beta[start + t, f] += centre[t]
        for i in range(n_own):
            value -= 0.5 * weighted_sum(eps[block, i, 0], eps[block, i, 0], n)
    return value if abs(value) < np.inf else -np.inf
