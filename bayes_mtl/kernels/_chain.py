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

Arrays that a loop over later tasks reads have the task last.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._information import inform, pull_back_information
from bayes_mtl.kernels._lanes import block_length, cholesky_and_solve, pull_back_cholesky, take
from bayes_mtl.kernels._population import (
    add_gradient_of_cholesky,
    add_information,
    apply_design,
    feature_cholesky,
    membership,
    project,
    spread,
)
from bayes_mtl.kernels._small_linalg import (
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
    loadings: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
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
    sd, correlation, sigma, mean, root, target, inside, column, design
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
        sd, correlation, loadings, sigma, mean, z_common, z, root, target, inside, column, design,
        blocks, whole, beta, alpha,
    )  # fmt: skip


def reverse(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
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
    d_z_common: FloatArray,
    d_z: FloatArray,
) -> None:
    """Pull cotangents of `forward`'s outputs back to its first seven inputs."""
    n_tasks, n_columns, n_varying = z.shape[0], root.shape[0], sd.shape[0]
    n_inside, n_common = inside.shape[0], column.shape[0]
    blocks, whole = _workspace(n_tasks, n_columns, n_varying, n_inside, n_common)
    H, HA, _, K_own, Y, G, K, GL, LGL, S, effects = blocks
    after, G_inside, base, _, c, w, rho, e, p, U, shifted = whole
    beta, alpha = np.empty((n_tasks, n_columns)), np.empty(n_common)
    d_sd[:] = 0.0
    d_correlation[:] = 0.0
    d_loadings[:] = 0.0
    d_sigma[:] = 0.0
    d_mean[:] = 0.0
    d_z_common[:] = 0.0
    d_z[:] = 0.0
    found = _evaluate(
        sd, correlation, loadings, sigma, mean, z_common, z, root, target, inside, column, design,
        blocks, whole, beta, alpha,
    )  # fmt: skip
    if not abs(found) < np.inf:
        return

    weight = d_value[0]
    n_blocks, length = K.shape[0], K.shape[3]
    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    own = np.arange(n_varying)
    d_L = np.zeros((n_varying, n_varying))

    # From beta to the coordinates, the last task first: e = K^-T v, v = K^-1 q + z, q = A'c + sum lambda rho,
    # c = b - H phi. What was added to rho step by step is taken off again.
    d_after = np.zeros((n_tasks, n_tasks))
    d_G_inside = np.zeros((n_inside, n_inside, n_tasks))
    d_phi = np.empty((n_columns, n_tasks))
    d_w = np.zeros((n_inside, n_tasks))  # by way of the steps so far
    d_rho = np.zeros((n_inside, n_tasks))
    d_v, d_q = np.empty((n_varying, n_tasks)), np.empty((n_varying, n_tasks))
    d_c = np.zeros((n_columns, n_tasks))
    step, pulled = np.empty(n_varying), np.empty(n_varying)
    for s in range(n_tasks - 1, -1, -1):
        block, lane = s // length, s % length
        for i in range(n_varying):
            entry = 0.0
            for f in range(i, n_varying):
                entry += L[f, i] * d_beta[s, f]
            step[i] = -weight * e[i, s] + S[block, i, lane] * entry
        for x in range(n_inside):
            entry, own_e = 0.0, e[inside[x], s]
            for t in range(s + 1, n_tasks):
                entry += after[s, t] * d_w[x, t]
                d_after[s, t] += own_e * d_w[x, t]
            step[inside[x]] += entry
        for i in range(n_varying):
            for j in range(i):
                step[i] -= K[block, i, j, lane] * step[j]
            step[i] *= K[block, i, i, lane]
            d_z[s, i] = step[i]
            d_v[i, s] = step[i]
        _solve_transposed(K, block, lane, step)
        for i in range(n_varying):
            d_q[i, s] = step[i]
            pulled[i] = S[block, i, lane] * step[i]
        for f in range(n_varying):
            for i in range(f + 1):
                d_c[f, s] += L[f, i] * pulled[i]
        for f in range(n_columns):
            d_phi[f, s] = d_beta[s, f]
            for g in range(n_varying):
                d_phi[f, s] -= H[block, f, g, lane] * d_c[g, s]
        for x in range(n_inside):
            d_own = step[inside[x]]
            for y in range(n_inside):
                own_e, d_other = e[inside[y], s], step[inside[y]]
                for t in range(s + 1, n_tasks):
                    moved = after[s, t] * G_inside[x, y, t]
                    rho[x, t] += moved * own_e  # as it was before this step
                    d_w[x, t] -= moved * d_other
                    d_G_inside[x, y, t] -= after[s, t] * d_rho[x, t] * own_e
            for t in range(s + 1, n_tasks):
                d_after[s, t] += d_own * rho[x, t]
                d_rho[x, t] += after[s, t] * d_own
            for f in range(inside[x], n_varying):
                d_w[x, s] += L[f, inside[x]] * d_phi[f, s]

    # The factors K, and what later tasks gave to them.
    d_W = np.zeros((n_blocks, n_varying, n_varying, length))
    work = np.empty((n_varying, n_varying, length))
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for i in range(n_varying):
            for j in range(i + 1):
                for t in range(n):
                    s = start + t
                    d_W[block, i, j, t] = -e[i, s] * d_v[j, s] - d_q[i, s] * p[j, s]
            for t in range(n):
                d_W[block, i, i, t] -= weight * K[block, i, i, t]
        pull_back_cholesky(K[block], d_W[block], work, n)
        for x in range(n_inside):
            for y in range(n_inside):
                for t in range(n):
                    s = start + t
                    entry = d_W[block, inside[x], inside[y], t]
                    for later in range(s + 1, n_tasks):
                        both = after[s, later] * entry
                        d_G_inside[x, y, later] += after[s, later] * both
                        d_after[s, later] += 2.0 * both * G_inside[x, y, later]
    for s in range(n_tasks):
        for t in range(s + 1, n_tasks):
            d_loadings[t, s] = d_after[s, t]

    # From alpha to Q and h: alpha = U^-T x, x = U^-1 h + z.
    d_base = np.empty((n_columns, length))
    d_common = d_alpha.copy()
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
                    d_base[f, t] -= GL[block, f, x, t] * d_rho[x, start + t]
        for i in range(n_common):
            entry = 0.0
            for t in range(n):
                entry += effects[block, i, t] * d_base[column[i], t]
            d_common[i] += entry
    d_h = np.zeros(n_common)
    d_Q = np.zeros((n_common, n_common))
    solve_lower(U, d_common)
    for i in range(n_common):
        d_z_common[i] = d_common[i]
        d_h[i] = d_common[i]
    solve_lower_transposed(U, d_h)
    for i in range(n_common):
        for j in range(i + 1):
            d_Q[i, j] = -alpha[i] * d_common[j] - d_h[i] * (shifted[j] - z_common[j])
        d_Q[i, i] -= weight / U[i, i]
    pull_back_cholesky_shared(U, d_Q)

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
        for x in range(n_inside):
            for f in range(inside[x], n_varying):
                entry, total = L[f, inside[x]], 0.0
                for t in range(n):
                    s = start + t
                    spread_rho[f, t] += entry * d_rho[x, s]
                    # L in rho, by what is left of g; and in phi.
                    left = G[block, n_columns, f, t]
                    for g in range(n_columns):
                        left -= G[block, g, f, t] * base[g, s]
                    total += left * d_rho[x, s] + d_phi[f, s] * w[x, s]
                    for y in range(n_inside):
                        both = d_G_inside[x, y, s] + d_G_inside[y, x, s]
                        total += GL[block, f, y, t] * both
                        half[f, y, t] += 0.5 * entry * both
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
                    d_A[f, i, t] = c[f, s] * d_q[i, s] + d_beta[s, f] * e[i, s]
        pull_back_information(
            H[block], HA[block], K_own[block], Y[block], S[block], sigma, mean, own, L, is_inside, d_beta,
            d_G, d_g, d_Y, d_K, d_W[block], d_b, d_A, d_scale, d_L, d_unique, d_sigma, d_mean, start, n,
        )  # fmt: skip
    for t in range(n_tasks):
        d_loadings[t, t] = d_unique[t]
    add_gradient_of_cholesky(d_L, sd, correlation, inside, d_sd, d_correlation)


@subroutine
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
    whole = (
        np.zeros((n_tasks, n_tasks)),  # after[s, t] = lambda_ts for t > s
        np.empty((n_inside, n_inside, n_tasks)),  # L'G L
        np.empty((n_columns, n_tasks)),  # D alpha
        np.empty((n_columns, n_tasks)),  # phi
        np.empty((n_columns, n_tasks)),  # b - H phi
        np.zeros((n_inside, n_tasks)),  # w
        np.empty((n_inside, n_tasks)),  # rho
        np.empty((n_varying, n_tasks)),  # e
        np.empty((n_varying, n_tasks)),  # K^-1 q
        np.zeros((n_common, n_common)),  # U
        np.zeros(n_common),  # U^-1 h + z
    )
    return blocks, whole


@subroutine
def _evaluate(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
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
    after, G_inside, base, phi, c, w, rho, e, p, U, shifted = whole
    n_tasks, n_columns, n_varying = z.shape[0], root.shape[0], sd.shape[0]
    n_inside, n_common = inside.shape[0], column.shape[0]
    n_blocks, length = K.shape[0], K.shape[3]
    total = sd.sum() + correlation.sum() + mean.sum() + sigma.sum() + z.sum() + z_common.sum()
    for t in range(n_tasks):
        for f in range(n_columns):
            beta[t, f] = mean[t if mean.shape[0] > 1 else 0, f]
        for s in range(t):
            after[s, t] = loadings[t, s]
            total += loadings[t, s]
        total += loadings[t, t]
    alpha[:] = 0.0
    if not (abs(total) < np.inf and sigma.min() > 0.0):
        return -np.inf

    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    own = np.arange(n_varying)
    Lg = np.empty((n_inside, length))
    nothing = np.empty((n_varying, 0, length))
    no_factors = np.zeros((0, length))
    log_det = np.empty(length)
    for i in range(n_common):
        U[i, i] = 1.0
    value = -(n_common + n_tasks * n_varying) * _HALF_LOG_2PI
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for i in range(n_common):
            take(effects[block, i], design[i], start, n)
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
            effects[block], n,
        )  # fmt: skip
        for x in range(n_inside):
            for t in range(n):
                rho[x, start + t] = Lg[x, t]
            for y in range(x + 1):
                for t in range(n):
                    G_inside[x, y, start + t] = LGL[block, x, y, t]
                    G_inside[y, x, start + t] = LGL[block, x, y, t]

    if not cholesky_in_place(U):
        return -np.inf
    solve_lower(U, shifted)
    for i in range(n_common):
        shifted[i] += z_common[i]
        alpha[i] = shifted[i]
        value -= np.log(U[i, i])
    solve_lower_transposed(U, alpha)
    for i in range(n_common):
        value -= 0.5 * alpha[i] * alpha[i]

    part = np.empty((n_columns, length))
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        apply_design(part, no_factors, L, inside, alpha, column, effects[block], n)
        for f in range(n_columns):
            for t in range(n):
                base[f, start + t] = part[f, t]
            for x in range(n_inside):
                for t in range(n):
                    rho[x, start + t] -= GL[block, f, x, t] * part[f, t]
        for i in range(n_varying):
            for j in range(i + 1):
                for t in range(n):
                    K[block, i, j, t] = W[block, i, j, t]
        for x in range(n_inside):
            for y in range(x + 1):
                for t in range(n):
                    entry = 0.0
                    for later in range(start + t + 1, n_tasks):
                        weight = after[start + t, later]
                        entry += weight * weight * G_inside[x, y, later]
                    K[block, inside[x], inside[y], t] += entry
        for t in range(n):
            log_det[t] = 0.0
        if not cholesky_and_solve(K[block], nothing, log_det, n):
            return -np.inf
        for t in range(n):
            value -= log_det[t]

    step, scaled = np.empty(n_varying), np.empty(n_varying)
    for s in range(n_tasks):
        block, lane = s // length, s % length
        for f in range(n_columns):
            phi[f, s] = base[f, s]
        for x in range(n_inside):
            for f in range(inside[x], n_varying):
                phi[f, s] += L[f, inside[x]] * w[x, s]
        for f in range(n_columns):
            c[f, s] = H[block, f, n_columns, lane]
            for g in range(n_columns):
                c[f, s] -= H[block, f, g, lane] * phi[g, s]
        for i in range(n_varying):
            entry = 0.0
            for f in range(i, n_varying):
                entry += L[f, i] * c[f, s]
            step[i] = S[block, i, lane] * entry
        for x in range(n_inside):
            entry = 0.0
            for t in range(s + 1, n_tasks):
                entry += after[s, t] * rho[x, t]
            step[inside[x]] += entry
        for i in range(n_varying):
            for j in range(i):
                step[i] -= K[block, i, j, lane] * p[j, s]
            p[i, s] = step[i] * K[block, i, i, lane]
        for i in range(n_varying):
            step[i] = p[i, s] + z[s, i]
        _solve_transposed(K, block, lane, step)
        for i in range(n_varying):
            e[i, s] = step[i]
            scaled[i] = S[block, i, lane] * step[i]
            value -= 0.5 * step[i] * step[i]
        for x in range(n_inside):
            own_e = step[inside[x]]
            for t in range(s + 1, n_tasks):
                w[x, t] += after[s, t] * own_e
            for y in range(n_inside):
                other = step[inside[y]]
                for t in range(s + 1, n_tasks):
                    rho[x, t] -= after[s, t] * G_inside[x, y, t] * other
        for f in range(n_columns):
            entry = phi[f, s]
            for i in range(min(f + 1, n_varying) if f < n_varying else 0):
                entry += L[f, i] * scaled[i]
            beta[s, f] += entry
    return value if abs(value) < np.inf else -np.inf


@subroutine
def _solve_transposed(K: FloatArray, block: int, lane: int, b: FloatArray) -> None:
    """Overwrite b by K^-T b, for the factor of one task as `cholesky_and_solve` left it."""
    for i in range(b.shape[0] - 1, -1, -1):
        for m in range(i + 1, b.shape[0]):
            b[i] -= K[block, m, i, lane] * b[m]
        b[i] *= K[block, i, i, lane]
