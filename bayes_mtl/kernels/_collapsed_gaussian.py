"""Gaussian outcomes with all Gaussian coefficients integrated out exactly.

The rows of task t enter as F pseudo-rows (`data.pseudo_rows`): R_t with R_t'R_t = X_t'W X_t, y_t with
R_t'y_t = X_t'W y, and rest_t = y'W y - |y_t|^2, which no coefficient explains. The coefficients are

    beta_t = mean_t + phi_t + L u_t       phi_t = Z_t alpha       u_tp ~ N(0, S_tp^2)       alpha ~ N(0, I)

with L = diag(sd) C the Cholesky factor of the feature covariance, and S_tp = delta_t inside the task
covariance, 1 outside of it. What tasks have in common, alpha, are standardised population means, shared
slopes and effects of task features (c moves coefficient column[c] by effect_scale[c] design[c, t]), and the
factors (k, p), which add lambda_tk L_.p.

Integrating u_t out, with B_t = s^2 I + R_t L S_t^2 L'R_t' = K K',

    V = K^-1 R     v = K^-1 (y - R mean)     G = V'V     g = V'v                 (the information on phi_t)
    log p_t = -(n - F) log s - log|K| - |v|^2 / 2 - rest / (2 s^2) - n log(2 pi) / 2       (at phi_t = 0)

and then alpha, with Q = I + sum_t Z_t'G_t Z_t and h = sum_t Z_t'g_t,

    log p = sum_t log p_t - log|Q| / 2 + h'Q^-1 h / 2.

The gradient needs no derivative of a factorisation: by Fisher's identity it is the posterior mean of the
gradient given alpha. With alpha ~ N(m, C) a posteriori, C = Q^-1, Phi = Z C Z', e = v - V Z m, rho = V'e and
E = rho rho' + G Phi G - G,

    d mean = rho      d Z = rho m' - G Z C      d L = E L S^2 + (from Z)      d delta = delta tr_inside(L'E L)
    s d s = -n + rest / s^2 + |e|^2 + tr(G Phi) - tr(E L S^2 L')
    effect_scale_c d effect_scale_c = m_c^2 + C_cc - 1      (sum_t Z_t'(d Z_t) = m m' + C - I, since Q m = h)
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._lanes import (
    block_length,
    cholesky_and_solve,
    full_vectors,
    gram,
    product,
    take,
    take_rows,
    times_lower,
)
from bayes_mtl.kernels._population import (
    add_gradient_of_cholesky,
    add_information,
    add_product_with_loadings,
    apply_design,
    feature_cholesky,
    membership,
    mix_factors,
    project,
    pull_back_factors,
    scaled,
    spread,
)
from bayes_mtl.kernels._small_linalg import cholesky_in_place, inverse_from_cholesky

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def kernel(
    sd: FloatArray,
    correlation: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    effect_scale: FloatArray,
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
    d_unique: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    d_effect_scale: FloatArray,
) -> None:
    """Write the log density to `value` and its derivatives to the other outputs.

    Where an input is not finite, a scale not positive or a matrix not positive definite: -inf and zeros.

    Parameters
    ----------
    sd : (P,)
        Scales of the varying features, the first P of the F columns.
    correlation : (I, I)
        Lower Cholesky factor of the correlation of the features inside the task covariance.
    loadings : (T, K)
    unique_sd : (T,)
    sigma : (T,) or (1,)
    mean : (T, F) or (1, F)
    root, target, rest, count : (F, F, T), (F, T), (T,), (T,)
        R_t, y_t, rest_t, and the number of rows n_t.
    inside : (I,)
        Positions of the features inside the task covariance, ascending.
    effect_scale, column, design : (C,), (C,), (C, T)
        What the common effects move, and how far: by effect_scale[c] design[c, t].
    """
    n_tasks, n_factors = loadings.shape
    n_columns, n_varying, n_inside, n_common = root.shape[0], sd.shape[0], inside.shape[0], column.shape[0]
    size = n_common + n_factors * n_inside
    per_task_sigma, per_task_mean = sigma.shape[0] > 1, mean.shape[0] > 1

    value[0] = -np.inf
    d_sd[:] = 0.0
    d_correlation[:] = 0.0
    d_loadings[:] = 0.0
    d_unique[:] = 0.0
    d_sigma[:] = 0.0
    d_mean[:] = 0.0
    d_effect_scale[:] = 0.0
    # Whatever else is not finite makes the value so, which is looked at before anything is written.
    for t in range(sigma.shape[0]):
        if not sigma[t] > 0.0:
            return

    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    length = block_length(n_columns, n_columns, n_tasks)
    n_blocks = (n_tasks + length - 1) // length

    # First pass: the information on phi_t, kept for the second pass.
    V = np.empty((n_blocks, n_columns, n_columns + 1, length))  # V and v
    G = np.empty((n_blocks, n_columns + 1, n_columns + 1, length))  # G, g and |v|^2
    GL = np.empty((n_blocks, n_columns, n_inside, length))
    LGL = np.empty((n_blocks, n_inside, n_inside, length))
    Lg = np.empty((n_inside, length))
    lam = np.empty((n_blocks, n_factors, length))
    effects = np.empty((n_blocks, n_common, length))
    Q = np.eye(size)
    h = np.zeros(size)
    RL = np.empty((n_columns, n_varying, length))
    B = np.empty((n_columns, n_columns, length))
    s = np.empty(length)
    centre = np.empty(length)
    square = np.empty(length)
    log_det = np.empty(length)
    logp = 0.0
    for block in range(n_blocks):
        start = block * length
        here = min(length, n_tasks - start)
        n = full_vectors(here)
        right = V[block]
        s[:] = 1.0
        square[:] = 0.0
        log_det[:] = 0.0
        for t in range(here):
            s[t] = sigma[start + t] if per_task_sigma else sigma[0]
            square[t] = unique_sd[start + t] * unique_sd[start + t]
        for c in range(n_common):
            scaled(effects[block, c], design[c], effect_scale[c], start, here)
        take_rows(right, root, target, start, here)
        for g in range(n_columns):
            moved = mean[0, g]
            if per_task_mean:
                take(centre, mean[:, g], start, here)
            elif moved != 0.0:
                for t in range(n):
                    centre[t] = moved
            else:
                continue
            for f in range(n_columns):
                for t in range(n):
                    right[f, n_columns, t] -= right[f, g, t] * centre[t]
        times_lower(RL, right, L, n)
        for f in range(n_columns):
            for g in range(f + 1):
                for t in range(n):
                    B[f, g, t] = s[t] * s[t] if f == g else 0.0
                for p in range(n_varying):
                    if is_inside[p]:
                        for t in range(n):
                            B[f, g, t] += RL[f, p, t] * RL[g, p, t] * square[t]
                    else:
                        for t in range(n):
                            B[f, g, t] += RL[f, p, t] * RL[g, p, t]
        if not cholesky_and_solve(B, right, log_det, n):
            return
        gram(G[block], right, n)
        for t in range(here):
            rows = count[start + t]
            logp -= (rows - n_columns) * np.log(s[t]) + rows * _HALF_LOG_2PI + log_det[t]
            logp -= 0.5 * (G[block, n_columns, n_columns, t] + rest[start + t] / (s[t] * s[t]))
        for k in range(n_factors):
            take(lam[block, k], loadings[:, k], start, here)
        if n_factors > 0:
            project(GL[block], LGL[block], Lg, G[block], G[block, n_columns], L, inside, n)
        add_information(
            Q,
            h,
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

    # alpha ~ N(m, C) given the data.
    C = np.empty((size, size))
    m = np.zeros(size)
    if not cholesky_in_place(Q):
        return
    inverse_from_cholesky(Q, C)
    for i in range(size):
        for j in range(size):
            m[i] += C[i, j] * h[j]
        logp += 0.5 * m[i] * h[i] - np.log(Q[i, i])
    if not abs(logp) < np.inf:
        return

    # Second pass: the gradient.
    d_L = np.zeros((n_varying, n_varying))
    d_lam = np.empty((n_factors, length))
    u = np.empty((n_inside, length))
    ZC = np.empty((n_columns, n_inside, length))
    Phi = np.empty((n_columns, n_columns, length))
    GPhi = np.empty((n_columns, n_columns, length))
    E = np.empty((n_varying, n_varying, length))
    EL = np.empty(length)
    LEL = np.empty(length)
    m_phi = np.empty((n_columns, length))
    e = np.empty((n_columns, length))
    rho = np.empty((n_columns, length))
    noise = np.empty(length)
    unique = np.empty(length)
    for block in range(n_blocks):
        start = block * length
        here = min(length, n_tasks - start)
        n = full_vectors(here)
        noise[:] = 0.0
        unique[:] = 0.0
        square[:] = 0.0
        for t in range(here):
            s[t] = sigma[start + t] if per_task_sigma else sigma[0]
            square[t] = unique_sd[start + t] * unique_sd[start + t]
            noise[t] = rest[start + t] / (s[t] * s[t]) - count[start + t]
        for k in range(n_factors):
            for t in range(n):
                d_lam[k, t] = 0.0
        mix_factors(u, lam[block], m, n)
        apply_design(m_phi, u, L, inside, m, column, effects[block], n)
        spread(
            ZC, Phi, d_lam, C, GL[block], LGL[block], lam[block], L, inside, column, effects[block], -1.0, n
        )
        product(GPhi, G[block, :n_columns], Phi, n)
        for f in range(n_columns):
            for t in range(n):
                e[f, t] = V[block, f, n_columns, t]
                noise[t] += GPhi[f, f, t]
            for g in range(n_columns):
                for t in range(n):
                    e[f, t] -= V[block, f, g, t] * m_phi[g, t]
            for t in range(n):
                noise[t] += e[f, t] * e[f, t]
        for f in range(n_columns):
            for t in range(n):
                rho[f, t] = 0.0
            for g in range(n_columns):
                for t in range(n):
                    rho[f, t] += V[block, g, f, t] * e[g, t]
            if per_task_mean:
                for t in range(here):
                    d_mean[start + t, f] = rho[f, t]
            else:
                entry = 0.0
                for t in range(n):
                    entry += rho[f, t]
                d_mean[0, f] += entry

        # d Z = rho m' - G Z C, for the part of Z that is made of loadings and L.
        if n_factors > 0:
            pull_back_factors(d_lam, d_L, rho, u, L, inside, m, EL, n)
            add_product_with_loadings(d_L, G[block], ZC, inside, -1.0, n)

        # E = rho rho' + G Phi G - G, then E L S^2 and the diagonal of L'E L.
        for p in range(n_varying):
            for q in range(p + 1):
                for t in range(n):
                    E[p, q, t] = rho[p, t] * rho[q, t] - G[block, p, q, t]
                for f in range(n_columns):
                    for t in range(n):
                        E[p, q, t] += GPhi[p, f, t] * G[block, f, q, t]
                for t in range(n):
                    E[q, p, t] = E[p, q, t]
        for q in range(n_varying):
            for t in range(n):
                LEL[t] = 0.0
            for p in range(q, n_varying):
                for t in range(n):
                    EL[t] = 0.0
                for i in range(q, n_varying):
                    entry = L[i, q]
                    if entry != 0.0:
                        for t in range(n):
                            EL[t] += E[p, i, t] * entry
                entry = L[p, q]
                for t in range(n):
                    LEL[t] += entry * EL[t]
                entry = 0.0
                for t in range(n):
                    entry += EL[t] * square[t] if is_inside[q] else EL[t]
                d_L[p, q] += entry
            if is_inside[q]:
                for t in range(n):
                    unique[t] += LEL[t]
                    noise[t] -= LEL[t] * square[t]
            else:
                for t in range(n):
                    noise[t] -= LEL[t]
        total = 0.0
        for t in range(here):
            d_unique[start + t] = unique_sd[start + t] * unique[t]
            noise[t] /= s[t]
            total += noise[t]
            for k in range(n_factors):
                d_loadings[start + t, k] = d_lam[k, t]
        if per_task_sigma:
            for t in range(here):
                d_sigma[start + t] = noise[t]
        else:
            d_sigma[0] += total

    for c in range(n_common):
        if effect_scale[c] != 0.0:
            d_effect_scale[c] = (m[c] * m[c] + C[c, c] - 1.0) / effect_scale[c]
    add_gradient_of_cholesky(d_L, sd, correlation, inside, d_sd, d_correlation)
    value[0] = logp
