"""Gaussian outcomes with all Gaussian coefficients integrated out exactly.

The rows of task t enter as F pseudo-rows (`data.pseudo_rows`): R_t with R_t'R_t = X_t'W X_t, y_t with
R_t'y_t = X_t'W y, and rest_t = y'W y - |y_t|^2, which no coefficient explains. The coefficients are

    beta_t = mean_t + phi_t + L u_t       phi_t = Z_t alpha       u_tp ~ N(0, S_tp^2)       alpha ~ N(0, I)

with L = diag(sd) C the Cholesky factor of the feature covariance, and S_tp = delta_t inside the task
covariance, 1 outside of it. What tasks have in common, alpha, are standardised population means, shared
slopes and effects of task features (c moves coefficient column[c] by design[c, t]), and the factors (k, p),
which add lambda_tk L_.p.

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
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._lanes import (
    block_length,
    cholesky_and_solve,
    gram,
    product,
    product_transposed,
    times_shared,
)
from bayes_mtl.kernels._population import (
    add_gradient_of_cholesky,
    feature_cholesky,
    fill_design,
    membership,
    structure,
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
    column, design : (C,), (C, T)
        What the common effects move, and how far.
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
    # Whatever else is not finite makes the value so, which is looked at before anything is written.
    for t in range(sigma.shape[0]):
        if not sigma[t] > 0.0:
            return

    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)
    active = structure(L, inside, column, n_columns, n_factors)
    dense = np.ones((n_columns + 1, n_columns + 1), dtype=np.bool_)
    length = block_length(n_columns, n_columns, n_tasks)
    n_blocks = (n_tasks + length - 1) // length
    Z = np.zeros((n_columns, size, length))

    # First pass: the information on phi_t, kept for the second pass.
    V = np.empty((n_blocks, n_columns, n_columns + 1, length))  # V and v
    G = np.empty((n_blocks, n_columns + 1, n_columns + 1, length))  # G, g and |v|^2
    Q = np.eye(size)
    h = np.zeros(size)
    RL = np.empty((n_columns, n_varying, length))
    B = np.empty((n_columns, n_columns, length))
    GZ = np.empty((n_columns + 1, size, length))
    s = np.empty(length)
    unique = np.empty(length)
    log_det = np.empty(length)
    logp = 0.0
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        right = V[block]
        for t in range(n):
            s[t] = sigma[start + t] if per_task_sigma else sigma[0]
            log_det[t] = 0.0
        for f in range(n_columns):
            for t in range(n):
                right[f, n_columns, t] = target[f, start + t]
            for g in range(n_columns):
                for t in range(n):
                    right[f, g, t] = root[f, g, start + t]
                if per_task_mean:
                    for t in range(n):
                        right[f, n_columns, t] -= root[f, g, start + t] * mean[start + t, g]
                elif mean[0, g] != 0.0:
                    for t in range(n):
                        right[f, n_columns, t] -= root[f, g, start + t] * mean[0, g]

        times_shared(RL, right, L, dense, n)
        for p in range(n_varying):
            if is_inside[p]:
                for f in range(n_columns):
                    for t in range(n):
                        RL[f, p, t] *= unique_sd[start + t]
        for f in range(n_columns):
            for g in range(f + 1):
                for t in range(n):
                    B[f, g, t] = s[t] * s[t] if f == g else 0.0
                for p in range(n_varying):
                    for t in range(n):
                        B[f, g, t] += RL[f, p, t] * RL[g, p, t]
        if not cholesky_and_solve(B, right, log_det, n):
            return
        gram(G[block], right, n)
        for t in range(n):
            rows = count[start + t]
            logp -= (rows - n_columns) * np.log(s[t]) + rows * _HALF_LOG_2PI + log_det[t]
            logp -= 0.5 * (G[block, n_columns, n_columns, t] + rest[start + t] / (s[t] * s[t]))

        if size > 0:
            fill_design(Z, L, loadings, inside, column, design, start, n)
            product(GZ, G[block], Z, active, n)
            for i in range(size):
                for t in range(n):
                    h[i] += GZ[n_columns, i, t]
                for f in range(n_columns):
                    if active[f, i]:
                        for j in range(i + 1):
                            entry = 0.0
                            for t in range(n):
                                entry += Z[f, i, t] * GZ[f, j, t]
                            Q[i, j] += entry

    # alpha ~ N(m, C) given the data.
    C = np.empty((size, size))
    m = np.zeros(size)
    if size > 0:
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
    ZC = np.empty((n_columns, size, length))
    Phi = np.zeros((n_columns, n_columns, length))
    GPhi = np.zeros((n_columns + 1, n_columns, length))
    E = np.empty((n_varying, n_varying, length))
    EL = np.empty(length)
    LEL = np.empty(length)
    m_phi = np.zeros((n_columns, length))
    e = np.empty((n_columns, length))
    rho = np.empty((n_columns, length))
    noise = np.empty(length)
    for block in range(n_blocks):
        start = block * length
        n = min(length, n_tasks - start)
        for t in range(n):
            s[t] = sigma[start + t] if per_task_sigma else sigma[0]
            noise[t] = rest[start + t] / (s[t] * s[t]) - count[start + t]
            unique[t] = 0.0
        if size > 0:
            fill_design(Z, L, loadings, inside, column, design, start, n)
            times_shared(ZC, Z, C, active, n)
            product_transposed(Phi, ZC, Z, active, n)
            product(GPhi, G[block], Phi, dense, n)
            for f in range(n_columns):
                for t in range(n):
                    m_phi[f, t] = 0.0
                    noise[t] += GPhi[f, f, t]
                for i in range(size):
                    if active[f, i]:
                        for t in range(n):
                            m_phi[f, t] += Z[f, i, t] * m[i]
        for f in range(n_columns):
            for t in range(n):
                e[f, t] = V[block, f, n_columns, t]
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
            for t in range(n):
                d_mean[start + t if per_task_mean else 0, f] += rho[f, t]

        # d Z, for the part of Z that is made of loadings and L.
        for k in range(n_factors):
            for x in range(n_inside):
                i = n_common + k * n_inside + x
                for p in range(inside[x], n_varying):
                    if active[p, i]:
                        for t in range(n):
                            EL[t] = rho[p, t] * m[i]
                        for f in range(n_columns):
                            for t in range(n):
                                EL[t] -= G[block, p, f, t] * ZC[f, i, t]
                        entry = 0.0
                        for t in range(n):
                            entry += EL[t] * loadings[start + t, k]
                            d_loadings[start + t, k] += EL[t] * L[p, inside[x]]
                        d_L[p, inside[x]] += entry

        # E = rho rho' + G Phi G - G, then E L S^2 and the diagonal of L'E L.
        for p in range(n_varying):
            for q in range(p + 1):
                for t in range(n):
                    E[p, q, t] = rho[p, t] * rho[q, t] - G[block, p, q, t]
                if size > 0:
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
                    if L[i, q] != 0.0:
                        for t in range(n):
                            EL[t] += E[p, i, t] * L[i, q]
                entry = 0.0
                for t in range(n):
                    entry += EL[t] * unique_sd[start + t] ** 2 if is_inside[q] else EL[t]
                    LEL[t] += L[p, q] * EL[t]
                d_L[p, q] += entry
            for t in range(n):
                noise[t] -= LEL[t] * unique_sd[start + t] ** 2 if is_inside[q] else LEL[t]
                unique[t] += LEL[t] if is_inside[q] else 0.0
        for t in range(n):
            d_unique[start + t] = unique_sd[start + t] * unique[t]
            d_sigma[start + t if per_task_sigma else 0] += noise[t] / s[t]

    add_gradient_of_cholesky(d_L, sd, correlation, inside, d_sd, d_correlation)
    value[0] = logp
