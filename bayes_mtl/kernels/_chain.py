"""Coordinates of coefficients whose tasks depend on each other, one after the other.

If the loadings are square and lower triangular (the Cholesky factor of a correlation matrix of tasks), factor
t is what task t has of its own beyond the tasks before it:

    beta_t = mean_t + phi_t + A_t e_t        phi_t = D_t alpha + L w_t        w_t = sum_{s<t} lambda_ts e_s

with A_t = L S_t, S_t = lambda_tt inside the task covariance and 1 outside of it. Treating all e_t together,
as `_whitening` does, costs (T P)^3. Here each is centred and scaled by what the rows of its task say, given
the tasks before, and by what those of later tasks say, at a cost of T^2 P^2 + T P^3. With H, b, W, G, g of
`_information` and G'_t = L'G_t L,

    rho_ts = L'(g_t - G_t D_t alpha) - G'_t sum_{r<s} lambda_tr e_r           (what task t says, before e_s)
    W_s + sum_{t>s} lambda_ts^2 G'_t = K_s K_s'
    e_s = K_s^-T (K_s^-1 (A_s'(b_s - H_s phi_s) + sum_{t>s} lambda_ts rho_ts) + z_s)

and alpha as if the deviations of tasks were independent. It is a triangular map, so as coordinates it is
exact: log p(alpha, e) + log |d(alpha, e) / dz| is as in `_whitening`. The coordinates are independent
standard normals only roughly, since later tasks are taken to be independent of each other.

Arrays that a loop over later tasks reads have the task last, or all features of all tasks in one row.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._gaussian_tasks import log_likelihood
from bayes_mtl.kernels._information import inform, pull_back_information
from bayes_mtl.kernels._lanes import block_length, cholesky_and_solve, full_vectors, pull_back_cholesky
from bayes_mtl.kernels._population import (
    add_gradient_of_cholesky,
    add_information,
    apply_design,
    feature_cholesky,
    membership,
    project,
    pull_back_common,
    pull_back_effect_scale,
    scaled,
    solve_common,
    spread,
)
from bayes_mtl.kernels._small_linalg import add_multiple, dot
from bayes_mtl.kernels.compile import allocating_subroutine, subroutine

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def forward(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    inside: IntArray,
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
    sd, correlation, sigma, mean, effect_scale, root, target, inside, column, design
        As in `_collapsed_gaussian.kernel`.
    loadings : (T, T)
        Of which the lower triangle is read.
    z_common, z : (C,), (T, P)
        Coordinates of the population effects, and of each task.
    value, beta, alpha : (), (T, F), (C,)
        Outputs.
    """
    blocks, whole = _workspace(z.shape[0], root.shape[0], sd.shape[0], inside.shape[0], column.shape[0])
    value[0] = _evaluate(
        sd, correlation, loadings, sigma, mean, effect_scale, z_common, z, root, target, inside, column,
        design, blocks, whole, beta, alpha,
    )  # fmt: skip


def reverse(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    inside: IntArray,
    column: IntArray,
    design: FloatArray,
    d_value: FloatArray,
    d_beta: FloatArray,
    d_alpha: FloatArray,
    d_sd: FloatArray,
    d_correlation: FloatArray,
    d_loadings: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    d_effect_scale: FloatArray,
    d_z_common: FloatArray,
    d_z: FloatArray,
) -> None:
    """Pull cotangents of `forward`'s outputs back to its first eight inputs."""
    d_sd[:] = 0.0
    d_correlation[:] = 0.0
    d_loadings[:] = 0.0
    d_sigma[:] = 0.0
    d_mean[:] = 0.0
    d_effect_scale[:] = 0.0
    d_z_common[:] = 0.0
    d_z[:] = 0.0
    blocks, whole = _workspace(z.shape[0], root.shape[0], sd.shape[0], inside.shape[0], column.shape[0])
    beta, alpha = np.empty(d_beta.shape), np.empty(column.shape[0])
    found = _evaluate(
        sd, correlation, loadings, sigma, mean, effect_scale, z_common, z, root, target, inside, column,
        design, blocks, whole, beta, alpha,
    )  # fmt: skip
    if abs(found) < np.inf:
        _pull_back(
            sd, correlation, sigma, mean, effect_scale, z_common, inside, column, blocks, whole, alpha,
            d_value[0], d_beta, d_alpha,
            d_sd, d_correlation, d_loadings, d_sigma, d_mean, d_effect_scale, d_z_common, d_z,
        )  # fmt: skip


def gaussian(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    rest: FloatArray,
    count: FloatArray,
    inside: IntArray,
    column: IntArray,
    design: FloatArray,
    value: FloatArray,
    d_sd: FloatArray,
    d_correlation: FloatArray,
    d_loadings: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    d_effect_scale: FloatArray,
    d_z_common: FloatArray,
    d_z: FloatArray,
) -> None:
    """Write the log density of coordinates and Gaussian outcomes, and its derivatives, in one pass.

    Arguments are those of `forward` and of `_gaussian_tasks.kernel`.
    """
    value[0] = -np.inf
    d_sd[:] = 0.0
    d_correlation[:] = 0.0
    d_loadings[:] = 0.0
    d_sigma[:] = 0.0
    d_mean[:] = 0.0
    d_effect_scale[:] = 0.0
    d_z_common[:] = 0.0
    d_z[:] = 0.0
    blocks, whole = _workspace(z.shape[0], root.shape[0], sd.shape[0], inside.shape[0], column.shape[0])
    beta, alpha = np.empty((z.shape[0], root.shape[0])), np.empty(column.shape[0])
    d_beta, d_noise = np.zeros(beta.shape), np.zeros(sigma.shape[0])
    found = _evaluate(
        sd, correlation, loadings, sigma, mean, effect_scale, z_common, z, root, target, inside, column,
        design, blocks, whole, beta, alpha,
    )  # fmt: skip
    if not abs(found) < np.inf:
        return
    found += log_likelihood(beta, sigma, root, target, rest, count, d_beta, d_noise)
    if not abs(found) < np.inf:
        return
    _pull_back(
        sd, correlation, sigma, mean, effect_scale, z_common, inside, column, blocks, whole, alpha,
        1.0, d_beta, np.zeros(alpha.shape[0]),
        d_sd, d_correlation, d_loadings, d_sigma, d_mean, d_effect_scale, d_z_common, d_z,
    )  # fmt: skip
    for t in range(sigma.shape[0]):
        d_sigma[t] += d_noise[t]
    value[0] = found


@allocating_subroutine
def _pull_back(
    sd: FloatArray,
    correlation: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
    z_common: FloatArray,
    inside: IntArray,
    column: IntArray,
    blocks: tuple[FloatArray, ...],
    whole: tuple[FloatArray, ...],
    alpha: FloatArray,
    weight: float,
    d_beta: FloatArray,
    d_alpha: FloatArray,
    d_sd: FloatArray,
    d_correlation: FloatArray,
    d_loadings: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    d_effect_scale: FloatArray,
    d_z_common: FloatArray,
    d_z: FloatArray,
) -> None:
    """Do the reverse sweep, after `_evaluate`; derivatives begin at zero, `weight` is that of the value."""
    H, HA, _, K_own, Y, G, K, GL, LGL, S, effects = blocks
    after, often, moved, G_flat, G_columns, AHL, factor, base, w, rho, e, seen, p, U, shifted = whole
    n_tasks, n_columns, n_varying = e.shape[0], H.shape[1], sd.shape[0]
    n_inside, n_common = inside.shape[0], column.shape[0]
    n_blocks, length = K.shape[0], K.shape[3]
    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    own = np.arange(n_varying)
    d_L = np.zeros((n_varying, n_varying))

    # From beta to the coordinates, the last task first: e = K^-T v, v = K^-1 q + z,
    # q = A'(b - H phi) + sum lambda rho. What was added to rho step by step is taken off again.
    pulled = np.empty((n_tasks, n_varying + n_inside))  # A'd_beta, L'd_beta
    scratch = np.empty(length)
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for k in range(n_varying + n_inside):
            i = k if k < n_varying else inside[k - n_varying]
            for t in range(n):
                scratch[t] = 0.0
            for f in range(i, n_varying):
                entry = L[f, i]
                for t in range(n):
                    scratch[t] += entry * d_beta[start + t, f]
            for t in range(n):
                pulled[start + t, k] = scratch[t] * (S[block, i, t] if k < n_varying else 1.0)
    d_after = np.zeros((n_tasks, n_tasks))
    size = moved.shape[1]
    d_G_columns = np.zeros((n_inside, size))
    d_moved = np.zeros((n_tasks, size))
    d_w = np.zeros(rho.shape)  # by way of the steps so far
    d_rho = np.zeros(rho.shape)
    d_v, d_q = np.empty((n_tasks, n_varying)), np.empty((n_tasks, n_varying))
    _sweep_back(
        weight, pulled, after, often, moved, G_columns, AHL, factor, inside, rho, rho.reshape(rho.size), e,
        seen, d_after, d_w, d_w.reshape(rho.size), d_rho, d_rho.reshape(rho.size), d_moved, d_z, d_v, d_q,
        np.empty(n_varying), np.empty(n_inside), np.empty(size),
    )  # fmt: skip
    for y in range(n_inside):
        _add_combination(d_G_columns[y], d_moved, 0, seen[:, y].copy())

    # The factors K, and what later tasks gave to them.
    d_W = np.empty((n_blocks, n_varying, n_varying, length))
    d_G_flat = np.zeros((n_tasks, n_inside * n_inside))
    work = np.empty((n_varying, n_varying, length))
    own_W = np.empty(n_inside * n_inside)
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for i in range(n_varying):
            for j in range(i + 1):
                for t in range(n):
                    s = start + t
                    d_W[block, i, j, t] = -e[s, i] * d_v[s, j] - d_q[s, i] * p[s, j]
            for t in range(n):
                d_W[block, i, i, t] -= weight * K[block, i, i, t]
        pull_back_cholesky(K[block], d_W[block], work, n)
        _pull_back_later(d_W[block], d_after, d_G_flat, after, G_flat, inside, own_W, start, n)
    for s in range(n_tasks):
        for t in range(s + 1, n_tasks):
            d_loadings[t, s] = d_after[s, t]

    # By way of phi, and of c = b - H phi.
    phi, d_phi = np.empty((n_columns, n_tasks)), np.empty((n_columns, n_tasks))
    c, d_c = np.empty((n_columns, n_tasks)), np.empty((n_columns, n_tasks))
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for f in range(n_columns):
            for t in range(n):
                s = start + t
                phi[f, s] = base[f, s]
                d_phi[f, s] = d_beta[s, f]
                d_c[f, s] = 0.0
            if f < n_varying:
                for x in range(n_inside):
                    entry = L[f, inside[x]]
                    for t in range(n):
                        phi[f, start + t] += entry * w[start + t, x]
                for i in range(f + 1):
                    entry = L[f, i]
                    for t in range(n):
                        d_c[f, start + t] += entry * S[block, i, t] * d_q[start + t, i]
        for f in range(n_columns):
            for t in range(n):
                c[f, start + t] = H[block, f, n_columns, t]
            for g in range(n_columns):
                for t in range(n):
                    c[f, start + t] -= H[block, f, g, t] * phi[g, start + t]
                    d_phi[f, start + t] -= H[block, f, g, t] * d_c[g, start + t]

    # From alpha to Q and h: alpha = U^-T x, x = U^-1 h + z.
    d_base = np.empty((n_columns, length))
    d_common = d_alpha.copy()
    moved = np.zeros(n_common)  # D'd_base
    for i in range(n_common):
        d_common[i] -= weight * alpha[i]
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for f in range(n_columns):
            for t in range(n):
                d_base[f, t] = d_phi[f, start + t]
            for x in range(n_inside):
                for t in range(n):
                    d_base[f, t] -= GL[block, f, x, t] * d_rho[start + t, x]
        for i in range(n_common):
            entry = 0.0
            for t in range(n):
                entry += effects[block, i, t] * d_base[column[i], t]
            moved[i] += entry
    for i in range(n_common):
        d_common[i] += moved[i]
    d_h = np.zeros(n_common)
    d_Q = np.zeros((n_common, n_common))
    pull_back_common(U, shifted, z_common, alpha, weight, d_common, d_z_common, d_h, d_Q)
    pull_back_effect_scale(U, shifted, z_common, alpha, moved, d_h, d_Q, effect_scale, d_effect_scale)

    # Task by task to the hyperparameters.
    no_factors = np.zeros((0, length))
    no_product = np.empty((n_columns, n_inside, length))
    d_unique = np.zeros(n_tasks)
    d_G = np.empty((n_columns, n_columns, length))
    d_g = np.empty((n_columns, length))
    d_Y = np.empty((n_varying, n_columns + 1, length))
    d_K = np.empty((n_varying, n_varying, length))
    d_b = np.empty((n_columns, length))
    d_A = np.empty((n_varying, n_varying, length))
    d_scale = np.empty(length)
    spread_rho = np.empty((n_columns, length))
    half = np.empty((n_varying, n_inside, length))
    left = np.empty((n_columns, length))
    both = np.empty((n_inside, n_inside, length))
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        spread(
            no_product, d_G, no_factors, d_Q, GL[block], LGL[block], no_factors, L, inside, column,
            effects[block], 2.0, n,
        )  # fmt: skip
        apply_design(d_g, no_factors, L, inside, d_h, column, effects[block], n)
        d_Y[:] = 0.0
        d_K[:] = 0.0
        spread_rho[:] = 0.0
        half[:] = 0.0
        for f in range(n_columns):  # what is left of g in rho
            for t in range(n):
                left[f, t] = G[block, n_columns, f, t]
            for g in range(n_columns):
                for t in range(n):
                    left[f, t] -= G[block, g, f, t] * base[g, start + t]
        for x in range(n_inside):
            for y in range(n_inside):
                for t in range(n):
                    s = start + t
                    both[x, y, t] = d_G_flat[s, x * n_inside + y] + d_G_flat[s, y * n_inside + x]
                    both[x, y, t] += d_G_columns[y, s * n_inside + x] + d_G_columns[x, s * n_inside + y]
        for x in range(n_inside):
            for f in range(inside[x], n_varying):
                entry, total = L[f, inside[x]], 0.0
                for t in range(n):
                    s = start + t
                    spread_rho[f, t] += entry * d_rho[s, x]
                    total += left[f, t] * d_rho[s, x] + d_phi[f, s] * w[s, x]
                for y in range(n_inside):
                    for t in range(n):
                        total += GL[block, f, y, t] * both[x, y, t]
                        half[f, y, t] += 0.5 * entry * both[x, y, t]
                d_L[f, inside[x]] += total
        for f in range(n_columns):
            for t in range(n):
                d_g[f, t] += spread_rho[f, t]
            for g in range(n_columns):
                for t in range(n):
                    s = start + t
                    d_G[f, g, t] -= 0.5 * (spread_rho[f, t] * base[g, s] + base[f, s] * spread_rho[g, t])
        for f in range(n_varying):
            for x in range(n_inside):
                for g in range(inside[x], n_varying):
                    entry = L[g, inside[x]]
                    for t in range(n):
                        d_G[f, g, t] += half[f, x, t] * entry
        for t in range(n):
            d_scale[t] = 0.0
        for f in range(n_columns):
            for t in range(n):
                s = start + t
                d_b[f, t] = d_c[f, s]
                d_scale[t] -= d_c[f, s] * (H[block, f, n_columns, t] - c[f, s])
        for f in range(n_varying):
            for i in range(f + 1):
                for t in range(n):
                    s = start + t
                    d_A[f, i, t] = c[f, s] * d_q[s, i] + d_beta[s, f] * e[s, i]
        pull_back_information(
            H[block], HA[block], K_own[block], Y[block], S[block], sigma, mean, own, L, is_inside, d_beta,
            d_G, d_g, d_Y, d_K, d_W[block], d_b, d_A, d_scale, d_L, d_unique, d_sigma, d_mean, start, n,
        )  # fmt: skip
    for t in range(n_tasks):
        d_loadings[t, t] = d_unique[t]
    add_gradient_of_cholesky(d_L, sd, correlation, inside, d_sd, d_correlation)


@allocating_subroutine
def _workspace(
    n_tasks: int, n_columns: int, n_varying: int, n_inside: int, n_common: int
) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
    """Return what `_evaluate` writes and the reverse sweep reads: by blocks of tasks, and for all at once."""
    length = block_length(n_columns, n_columns, n_tasks)
    n_blocks = (n_tasks + length - 1) // length
    blocks = (
        np.empty((n_blocks, n_columns, n_columns + 1, length)),  # H
        np.empty((n_blocks, n_columns, n_varying, length)),  # HA
        np.empty((n_blocks, n_varying, n_varying, length)),  # W
        np.empty((n_blocks, n_varying, n_varying, length)),  # its factor
        np.empty((n_blocks, n_varying, n_columns + 1, length)),  # Y
        np.empty((n_blocks, n_columns + 1, n_columns, length)),  # G
        np.empty((n_blocks, n_varying, n_varying, length)),  # K
        np.empty((n_blocks, n_columns, n_inside, length)),  # GL
        np.empty((n_blocks, n_inside, n_inside, length)),  # L'G L, lower triangle
        np.empty((n_blocks, n_varying, length)),  # S
        np.empty((n_blocks, n_common, length)),  # effects
    )
    size = full_vectors(n_tasks * n_inside)  # a loop over so many leaves nothing over
    n_rows = max(n_tasks, (size + n_inside - 1) // max(1, n_inside))  # of which the last are not used
    whole = (
        np.zeros((n_tasks, n_tasks)),  # after[s, t] = lambda_ts for t > s
        np.zeros((n_tasks, size)),  # the same, once for every feature inside
        np.zeros((n_tasks, size)),  # G_t e_s
        np.empty((n_tasks, n_inside * n_inside)),  # L'G L
        np.zeros((n_inside, size)),  # its column y of all tasks, one task after the other
        np.empty((n_tasks, n_varying, n_inside)),  # A'H L
        np.empty((n_tasks, n_varying, n_varying)),  # K
        np.empty((n_columns, n_tasks)),  # D alpha
        np.zeros((n_tasks, n_inside)),  # w
        np.zeros((n_rows, n_inside)),  # rho
        np.empty((n_tasks, n_varying)),  # e
        np.empty((n_tasks, n_inside)),  # of it, what other tasks see
        np.empty((n_tasks, n_varying)),  # K^-1 q
        np.zeros((n_common, n_common)),  # U
        np.zeros(n_common),  # U^-1 h + z
    )
    return blocks, whole


@allocating_subroutine
def _evaluate(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
    z_common: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    inside: IntArray,
    column: IntArray,
    design: FloatArray,
    blocks: tuple[FloatArray, ...],
    whole: tuple[FloatArray, ...],
    beta: FloatArray,
    alpha: FloatArray,
) -> float:
    """Return the value; keep what the reverse sweep needs."""
    H, HA, W, K_own, Y, G, K, GL, LGL, S, effects = blocks
    after, often, moved, G_flat, G_columns, AHL, factor, base, w, rho, e, seen, p, U, shifted = whole
    n_tasks, n_columns, n_varying = z.shape[0], root.shape[0], sd.shape[0]
    n_inside, n_common = inside.shape[0], column.shape[0]
    n_blocks, length = K.shape[0], K.shape[3]
    total = sd.sum() + correlation.sum() + mean.sum() + sigma.sum() + z.sum() + z_common.sum()
    total += effect_scale.sum()
    for t in range(n_tasks):
        for f in range(n_columns):
            beta[t, f] = mean[t if mean.shape[0] > 1 else 0, f]
        for s in range(t):
            after[s, t] = loadings[t, s]
            total += loadings[t, s]
            for x in range(n_inside):
                often[s, t * n_inside + x] = loadings[t, s]
        total += loadings[t, t]
    alpha[:] = 0.0
    if not (abs(total) < np.inf and sigma.min() > 0.0):
        return -np.inf

    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    own = np.arange(n_varying)
    Lg = np.empty((n_inside, length))
    nothing = np.empty((n_varying, 0, length))
    scratch = np.empty(length)
    no_factors = np.zeros((0, length))
    log_det = np.empty(length)
    for i in range(n_common):
        U[i, i] = 1.0
    value = -(n_common + n_tasks * n_varying) * _HALF_LOG_2PI
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for i in range(n_common):
            scaled(effects[block, i], design[i], effect_scale[i], start, n)
        for i in range(n_varying):
            for t in range(n):
                S[block, i, t] = loadings[start + t, start + t] if is_inside[i] else 1.0
        if not inform(
            H[block], HA[block], W[block], K_own[block], Y[block], G[block], S[block], log_det,
            root, target, sigma, mean, own, L, start, n,
        ):  # fmt: skip
            return -np.inf
        project(GL[block], LGL[block], Lg, G[block], G[block, n_columns], L, inside, n)
        add_information(
            U, shifted, G[block], G[block, n_columns], GL[block], LGL[block], Lg, no_factors, column,
            effects[block], scratch, n,
        )  # fmt: skip
        for x in range(n_inside):
            for t in range(n):
                rho[start + t, x] = Lg[x, t]
            for y in range(n_inside):
                for t in range(n):
                    entry = LGL[block, max(x, y), min(x, y), t]
                    G_flat[start + t, x * n_inside + y] = entry
                    G_columns[y, (start + t) * n_inside + x] = entry

    common = solve_common(U, shifted, z_common, alpha)
    if not abs(common) < np.inf:
        return -np.inf
    value += common

    part = np.empty((n_columns, length))
    gained = np.empty(n_inside * n_inside)
    q = np.empty((n_tasks, n_varying))
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        apply_design(part, no_factors, L, inside, alpha, column, effects[block], n)
        for f in range(n_columns):
            for t in range(n):
                base[f, start + t] = part[f, t]
            for x in range(n_inside):
                for t in range(n):
                    rho[start + t, x] -= GL[block, f, x, t] * part[f, t]
        for i in range(n_varying):
            for j in range(i + 1):
                for t in range(n):
                    K[block, i, j, t] = W[block, i, j, t]
        for t in range(n):
            log_det[t] = 0.0
        _add_later(K[block], after, G_flat, inside, gained, start, n)
        if not cholesky_and_solve(K[block], nothing, log_det, n):
            return -np.inf
        for t in range(n):
            value -= log_det[t]
        for i in range(n_varying):
            for j in range(i + 1):
                for t in range(n):
                    factor[start + t, i, j] = K[block, i, j, t]
            # A'(b - H D alpha) and A'H L, for the features inside.
            for t in range(n):
                scratch[t] = 0.0
            for f in range(i, n_varying):
                entry = L[f, i]
                for t in range(n):
                    scratch[t] += entry * H[block, f, n_columns, t]
            for t in range(n):
                scratch[t] *= S[block, i, t]
            for f in range(n_columns):
                for t in range(n):
                    scratch[t] -= HA[block, f, i, t] * part[f, t]
            for t in range(n):
                q[start + t, i] = scratch[t]
            for x in range(n_inside):
                for t in range(n):
                    scratch[t] = 0.0
                for f in range(inside[x], n_varying):
                    entry = L[f, inside[x]]
                    for t in range(n):
                        scratch[t] += HA[block, f, i, t] * entry
                for t in range(n):
                    AHL[start + t, i, x] = scratch[t]

    value -= 0.5 * _sweep(
        z, q, loadings, after, often, moved, G_columns, AHL, factor, inside, w, rho, rho.reshape(rho.size), e,
        seen, p, np.empty(n_varying), np.empty(n_inside),
    )  # fmt: skip
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for f in range(n_columns):
            for t in range(n):
                scratch[t] = base[f, start + t]
            if f < n_varying:
                for x in range(n_inside):
                    entry = L[f, inside[x]]
                    for t in range(n):
                        scratch[t] += entry * w[start + t, x]
                for i in range(f + 1):
                    entry = L[f, i]
                    for t in range(n):
                        scratch[t] += entry * S[block, i, t] * e[start + t, i]
            for t in range(n):
                beta[start + t, f] += scratch[t]
    return value if abs(value) < np.inf else -np.inf


@subroutine
def _sweep(
    z: FloatArray,
    q: FloatArray,
    loadings: FloatArray,
    after: FloatArray,
    often: FloatArray,
    moved: FloatArray,
    G_columns: FloatArray,
    AHL: FloatArray,
    factor: FloatArray,
    inside: IntArray,
    w: FloatArray,
    rho: FloatArray,
    flat_rho: FloatArray,
    e: FloatArray,
    seen: FloatArray,
    p: FloatArray,
    step: FloatArray,
    given: FloatArray,
) -> float:
    """Do the steps of the tasks, one after the other; return the sum of squares of all e.

    Some arrays come a second time, flat; `step` and `given` are overwritten.
    """
    n_tasks, n_varying, n_inside = z.shape[0], z.shape[1], inside.shape[0]
    squares = 0.0
    for s in range(n_tasks):
        _add_rows(w[s], seen[:s], loadings[s])
        weights, others = after[s, s + 1 :], rho[s + 1 : n_tasks]
        given[:] = 0.0
        _add_rows(given, others, weights)
        for i in range(n_varying):
            step[i] = q[s, i] - dot(AHL[s, i], w[s])
        for x in range(n_inside):
            step[inside[x]] += given[x]
        for i in range(n_varying):
            for j in range(i):
                step[i] -= factor[s, i, j] * p[s, j]
            p[s, i] = step[i] * factor[s, i, i]
        for i in range(n_varying):
            step[i] = p[s, i] + z[s, i]
        _solve_transposed(factor[s], step)
        for i in range(n_varying):
            e[s, i] = step[i]
            squares += step[i] * step[i]
        for x in range(n_inside):
            seen[s, x] = step[inside[x]]
        first = _from(s + 1, n_inside)
        change = moved[s, first:]
        _add_combination(change, G_columns, first, seen[s])
        _add_product(flat_rho[first : moved.shape[1]], often[s, first:], change, -1.0)
    return squares


@subroutine
def _sweep_back(
    weight: float,
    pulled: FloatArray,
    after: FloatArray,
    often: FloatArray,
    moved: FloatArray,
    G_columns: FloatArray,
    AHL: FloatArray,
    factor: FloatArray,
    inside: IntArray,
    rho: FloatArray,
    flat_rho: FloatArray,
    e: FloatArray,
    seen: FloatArray,
    d_after: FloatArray,
    d_w: FloatArray,
    d_flat_w: FloatArray,
    d_rho: FloatArray,
    d_flat_rho: FloatArray,
    d_moved: FloatArray,
    d_z: FloatArray,
    d_v: FloatArray,
    d_q: FloatArray,
    step: FloatArray,
    given: FloatArray,
    change: FloatArray,
) -> None:
    """Do the reverse sweep through the steps, the last task first."""
    n_tasks, n_varying, n_inside, size = e.shape[0], e.shape[1], inside.shape[0], moved.shape[1]
    for s in range(n_tasks - 1, -1, -1):
        first = _from(s + 1, n_inside)
        weights, others = after[s, s + 1 :], d_w[s + 1 : n_tasks]
        given[:] = 0.0
        _add_rows(given, others, weights)
        _add_products(d_after[s, s + 1 :], others, seen[s])
        for i in range(n_varying):
            step[i] = pulled[s, i] - weight * e[s, i]
        for x in range(n_inside):
            step[inside[x]] += given[x]
        for i in range(n_varying):
            for j in range(i):
                step[i] -= factor[s, i, j] * step[j]
            step[i] *= factor[s, i, i]
            d_z[s, i] = step[i]
            d_v[s, i] = step[i]
        _solve_transposed(factor[s], step)
        for i in range(n_varying):
            d_q[s, i] = step[i]
        for x in range(n_inside):
            given[x] = step[inside[x]]
        change[first:] = 0.0
        _add_combination(change[first:], G_columns, first, given)
        _undo_step(
            flat_rho[first:size], d_flat_w[first:size], d_moved[s, first:], d_flat_rho[first:size],
            often[s, first:], moved[s, first:], change[first:],
        )  # fmt: skip
        _add_products(d_after[s, s + 1 :], rho[s + 1 : n_tasks], given)
        _add_outer(d_rho[s + 1 : n_tasks], weights, given)
        for x in range(n_inside):
            d_w[s, x] += pulled[s, n_varying + x]
        for i in range(n_varying):
            add_multiple(d_w[s], AHL[s, i], -step[i])


@subroutine
def _add_later(
    K: FloatArray,
    after: FloatArray,
    G_flat: FloatArray,
    inside: IntArray,
    gained: FloatArray,
    start: int,
    n: int,
) -> None:
    """Add sum_{t>s} lambda_ts^2 G'_t to each W_s of a block."""
    n_tasks, n_inside = after.shape[0], inside.shape[0]
    for k in range(n):
        s = start + k
        gained[:] = 0.0
        for t in range(s + 1, n_tasks):
            add_multiple(gained, G_flat[t], after[s, t] * after[s, t])
        for x in range(n_inside):
            for y in range(x + 1):
                K[inside[x], inside[y], k] += gained[x * n_inside + y]


@subroutine
def _pull_back_later(
    d_W: FloatArray,
    d_after: FloatArray,
    d_G_flat: FloatArray,
    after: FloatArray,
    G_flat: FloatArray,
    inside: IntArray,
    own_W: FloatArray,
    start: int,
    n: int,
) -> None:
    """Pull derivatives by K back through `_add_later`."""
    n_tasks, n_inside = after.shape[0], inside.shape[0]
    for k in range(n):
        s = start + k
        for x in range(n_inside):
            for y in range(n_inside):
                own_W[x * n_inside + y] = d_W[inside[x], inside[y], k]
        for t in range(s + 1, n_tasks):
            entry = after[s, t]
            d_after[s, t] += 2.0 * entry * dot(G_flat[t], own_W)
            add_multiple(d_G_flat[t], own_W, entry * entry)


@subroutine
def _add_rows(out: FloatArray, rows: FloatArray, weights: FloatArray) -> None:
    """Add sum_t weights_t rows_t to `out`."""
    for t in range(rows.shape[0]):
        entry = weights[t]
        for k in range(out.shape[0]):
            out[k] += entry * rows[t, k]


@subroutine
def _add_products(out: FloatArray, rows: FloatArray, x: FloatArray) -> None:
    """Add rows_t'x to each out_t."""
    for t in range(rows.shape[0]):
        total = 0.0
        for k in range(x.shape[0]):
            total += rows[t, k] * x[k]
        out[t] += total


@subroutine
def _add_outer(rows: FloatArray, weights: FloatArray, x: FloatArray) -> None:
    """Add weights_t x to each row."""
    for t in range(rows.shape[0]):
        entry = weights[t]
        for k in range(x.shape[0]):
            rows[t, k] += entry * x[k]


@subroutine
def _add_product(out: FloatArray, a: FloatArray, b: FloatArray, factor: float) -> None:
    """Add factor * a * b to `out`."""
    for k in range(out.shape[0]):
        out[k] += factor * a[k] * b[k]


@subroutine
def _solve_transposed(K: FloatArray, b: FloatArray) -> None:
    """Overwrite b by K^-T b, for a factor with 1 / K_ii on its diagonal."""
    for i in range(b.shape[0] - 1, -1, -1):
        for m in range(i + 1, b.shape[0]):
            b[i] -= K[m, i] * b[m]
        b[i] *= K[i, i]


@subroutine
def _from(task: int, n_inside: int) -> int:
    """Return where the entries of a task begin, or less: where a vector begins."""
    return task * n_inside // 8 * 8


@subroutine
def _add_combination(out: FloatArray, rows: FloatArray, first: int, weights: FloatArray) -> None:
    """Add sum_y weights_y rows_y, from column `first` on, to `out`."""
    n = weights.shape[0]
    whole = n - n % 3
    for y in range(0, whole, 3):
        a, b, c = weights[y], weights[y + 1], weights[y + 2]
        one, two, three = rows[y, first:], rows[y + 1, first:], rows[y + 2, first:]
        for k in range(out.shape[0]):
            out[k] += a * one[k] + b * two[k] + c * three[k]
    for y in range(whole, n):
        add_multiple(out, rows[y, first:], weights[y])


@subroutine
def _undo_step(
    rho: FloatArray,
    d_w: FloatArray,
    d_moved: FloatArray,
    d_rho: FloatArray,
    scale: FloatArray,
    moved: FloatArray,
    d_given: FloatArray,
) -> None:
    """Make rho what it was before a step, and pull the step back; one loop, as loops take long to begin."""
    for k in range(rho.shape[0]):
        rho[k] += scale[k] * moved[k]
        d_moved[k] = -scale[k] * d_rho[k]
        d_w[k] -= scale[k] * d_given[k]
