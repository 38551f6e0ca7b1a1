"""Gaussian outcomes with the task coefficients integrated out exactly.

Per task t, with u_t the whitened deviation (beta_t = mean_t + L u_t), loadings lambda_t on K shared
factors f_k ~ N(0, I) and a unique part e_t ~ N(0, I),

    u_t = sum_k lambda_tk f_k + delta_t e_t   for the features inside the task covariance,
    u_t = e_t                                 for the features outside of it,

the data enter through G_t = X_t'W X_t, g_t = X_t'W y_t, q_t = y_t'W y_t and n_t alone:

    A_t = L'G_t L / s^2    b_t = L'(g_t - G_t mean_t) / s^2    r_t = q_t - 2 g_t'mean_t + mean_t'G_t mean_t
    D_t = diag(delta_t^2 or 1)        N_t = (I + D_t A_t)^-1       J_t = A_t N_t       j_t = N_t'b_t
    Q   = I + sum_t (lambda_t lambda_t') (x) J_t                   h = sum_t lambda_t (x) j_t
    log p(y) = sum_t [ -n_t log(s sqrt(2 pi)) - r_t / (2 s^2) - log|I + D_t A_t| / 2 + b_t'N_t D_t b_t / 2 ]
               - log|Q| / 2 + h'Q^-1 h / 2

The gradient needs no derivative of a factorisation: by Fisher's identity it is the posterior mean of
the gradient of the complete-data log density, which is a polynomial in u_t.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._small_linalg import cholesky_in_place, inverse_from_cholesky, multiply

_LOG_2PI = float(np.log(2.0 * np.pi))
_NO_UNIQUE_PART = 1e-100


def kernel(
    mean: FloatArray,
    cholesky: FloatArray,
    loadings: FloatArray,
    unique_sd: FloatArray,
    sigma: FloatArray,
    gram: FloatArray,
    moment: FloatArray,
    square: FloatArray,
    count: FloatArray,
    inside: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Log density and its derivatives by the first five arguments.

    Parameters
    ----------
    mean : (T, F)
        Coefficient means; the first P columns vary by task, the others are shared slopes.
    cholesky : (P, P)
        Lower Cholesky factor L of the feature covariance.
    loadings : (T, K)
        Loadings of tasks on latent factors; K may be 0.
    unique_sd : (T,)
        delta_t, the standard deviation of the unique part inside the task covariance.
    sigma : (T,)
        Noise scale.
    gram, moment, square, count : (T, F, F), (T, F), (T,), (T,)
        Sufficient statistics G_t, g_t, q_t, n_t.
    inside : (I,)
        Positions of the features inside the task covariance.

    Returns
    -------
    tuple
        Value (0-d) and derivatives by mean, cholesky, loadings, unique_sd, sigma. Where an input is
        not finite, a scale not positive, or a matrix not positive definite: -inf and zeros.
    """
    n_tasks, n_columns = mean.shape
    n_varying = cholesky.shape[0]
    n_factors = loadings.shape[1]
    n_inside = inside.shape[0]
    size = n_factors * n_inside

    d_mean = np.zeros((n_tasks, n_columns))
    d_cholesky = np.zeros((n_varying, n_varying))
    d_loadings = np.zeros((n_tasks, n_factors))
    d_unique = np.zeros(n_tasks)
    d_sigma = np.zeros(n_tasks)
    failed = (np.asarray(-np.inf), d_mean, d_cholesky, d_loadings, d_unique, d_sigma)

    for t in range(n_tasks):
        if not (sigma[t] > 0.0 and np.isfinite(sigma[t] + unique_sd[t])):
            return failed
        # A sum is finite only if all its terms are.
        total = 0.0
        for p in range(n_columns):
            total += mean[t, p]
        for k in range(n_factors):
            total += loadings[t, k]
        if not np.isfinite(total):
            return failed

    # Kept from the first pass for the third: A, b, c = g - G mean, N, M = W^-1 S, and N D.
    information = np.empty((n_tasks, n_varying, n_varying))
    score = np.empty((n_tasks, n_varying))
    residual_moment = np.empty((n_tasks, n_columns))
    residual_square = np.empty(n_tasks)
    shrink = np.empty((n_tasks, n_varying, n_varying))
    unique_map = np.empty((n_tasks, n_varying, n_varying))
    j_matrix = np.empty((n_tasks, n_varying, n_varying))

    precision = np.eye(size)
    shift = np.zeros(size)
    scale = np.ones(n_varying)
    gram_l = np.empty((n_varying, n_varying))
    work = np.empty((n_varying, n_varying))
    w_factor = np.empty((n_varying, n_varying))
    w_inverse = np.empty((n_varying, n_varying))
    logp = 0.0

    for t in range(n_tasks):
        a, b, c, n, m, j = (
            information[t],
            score[t],
            residual_moment[t],
            shrink[t],
            unique_map[t],
            j_matrix[t],
        )
        s2 = sigma[t] * sigma[t]
        r = square[t]
        for p in range(n_columns):
            fitted = 0.0
            for q in range(n_columns):
                fitted += gram[t, p, q] * mean[t, q]
            c[p] = moment[t, p] - fitted
            r += mean[t, p] * (fitted - 2.0 * moment[t, p])
        residual_square[t] = r

        # A = L'G L / s^2 and b = L'c / s^2; L is lower triangular.
        for p in range(n_varying):
            for q in range(n_varying):
                entry = 0.0
                for i in range(q, n_varying):
                    entry += gram[t, p, i] * cholesky[i, q]
                gram_l[p, q] = entry
        for p in range(n_varying):
            entry = 0.0
            for i in range(p, n_varying):
                entry += cholesky[i, p] * c[i]
            b[p] = entry / s2
            for q in range(p + 1):
                entry = 0.0
                for i in range(p, n_varying):
                    entry += cholesky[i, p] * gram_l[i, q]
                a[p, q] = entry / s2
                a[q, p] = entry / s2

        # W = I + S A S with S = sqrt(D).
        for i in range(n_inside):
            scale[inside[i]] = unique_sd[t]
        for p in range(n_varying):
            for q in range(p + 1):
                w_factor[p, q] = scale[p] * a[p, q] * scale[q]
            w_factor[p, p] += 1.0
        if not cholesky_in_place(w_factor):
            return failed
        inverse_from_cholesky(w_factor, w_inverse, work)

        # N = (I + D A)^-1 = S W^-1 S^-1, or I - S W^-1 S A in the columns where S vanishes.
        for q in range(n_varying):
            if abs(scale[q]) > _NO_UNIQUE_PART:
                for p in range(n_varying):
                    n[p, q] = scale[p] * w_inverse[p, q] / scale[q]
            else:
                for p in range(n_varying):
                    entry = 1.0 if p == q else 0.0
                    for i in range(n_varying):
                        entry -= scale[p] * w_inverse[p, i] * scale[i] * a[i, q]
                    n[p, q] = entry
            for p in range(n_varying):
                m[p, q] = w_inverse[p, q] * scale[q]
        multiply(a, n, j)

        logp -= count[t] * (np.log(sigma[t]) + 0.5 * _LOG_2PI) + 0.5 * r / s2
        for p in range(n_varying):
            logp -= np.log(w_factor[p, p])
            for q in range(n_varying):
                logp += 0.5 * b[p] * n[p, q] * scale[q] * scale[q] * b[q]

        for x in range(n_inside):
            p = inside[x]
            j_vector = 0.0
            for q in range(n_varying):
                j_vector += n[q, p] * b[q]
            for k in range(n_factors):
                shift[k * n_inside + x] += loadings[t, k] * j_vector
        for k in range(n_factors):
            for ll in range(k + 1):
                weight = loadings[t, k] * loadings[t, ll]
                if weight != 0.0:
                    for x in range(n_inside):
                        for y in range(n_inside):
                            symmetric = 0.5 * (j[inside[x], inside[y]] + j[inside[y], inside[x]])
                            precision[k * n_inside + x, ll * n_inside + y] += weight * symmetric

    # The factors: F ~ N(Q^-1 h, Q^-1) given the hyperparameters.
    factor_mean = np.zeros(size)
    factor_cov = np.empty((size, size))
    if size > 0:
        if not cholesky_in_place(precision):
            return failed
        inverse_from_cholesky(precision, factor_cov, np.empty((size, size)))
        for i in range(size):
            logp -= np.log(precision[i, i])
            entry = 0.0
            for i2 in range(size):
                entry += factor_cov[i, i2] * shift[i2]
            factor_mean[i] = entry
            logp += 0.5 * entry * shift[i]
    if not np.isfinite(logp):
        return failed

    phi = np.zeros(n_varying)
    phi_cov = np.zeros((n_varying, n_varying))
    second = np.empty((n_varying, n_varying))
    m_u = np.empty(n_varying)
    l_m = np.empty(n_varying)
    left = np.empty(n_varying)
    cross = np.empty((n_inside, n_inside))
    b_map = np.empty((n_varying, n_varying))
    jp = np.empty((n_varying, n_varying))

    for t in range(n_tasks):
        a, b, c, n, m, j = (
            information[t],
            score[t],
            residual_moment[t],
            shrink[t],
            unique_map[t],
            j_matrix[t],
        )
        s = sigma[t]
        for i in range(n_inside):
            scale[inside[i]] = unique_sd[t]

        # phi = sum_k lambda_k f_k: its posterior mean and covariance.
        for x in range(n_inside):
            phi[inside[x]] = 0.0
            for y in range(n_inside):
                phi_cov[inside[x], inside[y]] = 0.0
        for k in range(n_factors):
            for x in range(n_inside):
                for y in range(n_inside):
                    entry = 0.0
                    for ll in range(n_factors):
                        entry += loadings[t, ll] * factor_cov[ll * n_inside + x, k * n_inside + y]
                    cross[x, y] = entry  # Cov(phi, f_k)
            pull = 0.0
            for x in range(n_inside):
                phi[inside[x]] += loadings[t, k] * factor_mean[k * n_inside + x]
                for y in range(n_inside):
                    phi_cov[inside[x], inside[y]] += loadings[t, k] * cross[x, y]
                    pull += j[inside[y], inside[x]] * cross[x, y]
            d_loadings[t, k] = -pull

        # E u = N phi + N D b, Cov u = N D + N Cov(phi) N'.
        for p in range(n_varying):
            entry = 0.0
            for q in range(n_varying):
                entry += n[p, q] * (phi[q] + scale[q] * scale[q] * b[q])
            m_u[p] = entry
        multiply(n, phi_cov, work)
        for p in range(n_varying):
            for q in range(p + 1):
                entry = m_u[p] * m_u[q] + 0.5 * (
                    n[p, q] * scale[q] * scale[q] + n[q, p] * scale[p] * scale[p]
                )
                for i in range(n_varying):
                    entry += work[p, i] * n[q, i]
                second[p, q] = entry
                second[q, p] = entry

        quadratic = 0.0
        linear = 0.0
        for p in range(n_varying):
            entry = 0.0
            for q in range(n_varying):
                entry += a[p, q] * m_u[q]
                quadratic += a[p, q] * second[p, q]
            left[p] = b[p] - entry
            linear += b[p] * m_u[p]
        d_sigma[t] = (-count[t] + residual_square[t] / (s * s) - 2.0 * linear + quadratic) / s

        for k in range(n_factors):
            for x in range(n_inside):
                d_loadings[t, k] += factor_mean[k * n_inside + x] * left[inside[x]]

        # d/d delta = sum over inside p of E[(b - A u)_p e_p], e = M (b - A phi) + noise.
        for p in range(n_varying):
            for q in range(n_varying):
                entry = 0.0
                for i in range(n_varying):
                    entry += a[p, i] * m[q, i]
                b_map[p, q] = entry
        if n_factors > 0:
            multiply(j, phi_cov, jp)
        for x in range(n_inside):
            p = inside[x]
            e_mean = 0.0
            for q in range(n_varying):
                a_phi = 0.0
                for i in range(n_varying):
                    a_phi += a[q, i] * phi[i]
                e_mean += m[p, q] * (b[q] - a_phi)
            d_unique[t] += left[p] * e_mean - b_map[p, p]
            if n_factors > 0:
                for q in range(n_varying):
                    d_unique[t] += jp[p, q] * b_map[q, p]

        # d/d mean = (c - G L E u) / s^2, d/dL = (c E u' - G L E u u') / s^2.
        s2 = s * s
        for p in range(n_varying):
            entry = 0.0
            for q in range(p + 1):
                entry += cholesky[p, q] * m_u[q]
            l_m[p] = entry
        for p in range(n_columns):
            entry = c[p]
            for q in range(n_varying):
                entry -= gram[t, p, q] * l_m[q]
            d_mean[t, p] = entry / s2
        for p in range(n_varying):
            for q in range(n_varying):
                entry = 0.0
                for i in range(q, n_varying):
                    entry += gram[t, p, i] * cholesky[i, q]
                gram_l[p, q] = entry
        for p in range(n_varying):
            for q in range(p + 1):
                entry = c[p] * m_u[q]
                for i in range(n_varying):
                    entry -= gram_l[p, i] * second[i, q]
                d_cholesky[p, q] += entry / s2

    return np.asarray(logp), d_mean, d_cholesky, d_loadings, d_unique, d_sigma
