"""`_collapsed_gaussian` for tasks with fewer rows than columns: the same density, by rows.

Pseudo-rows R_t (R, F) are fewer than columns, and all algebra of a task is R x R; only what tasks have in
common needs matrices of its own size A. With the symbols of `_collapsed_gaussian`, V = K^-1 R, J = V L,
v = K^-1 (y - R mean),

    U = V Z (R, A)      Q = I + sum_t U'U = C^-1      e = v - U m      W = U C U'      N = e e' + W - I

    E = V'N V      d L = V'(N J S^2)      d delta = delta tr_inside(J'N J)      d mean = V'e
    s d s = -n + rest / s^2 + |e|^2 + tr W - tr(J S^2 J'N)

and factor k, which adds lambda_k J to U, has d Z = V'(e m' - U C). Nothing is larger than A times the number
of all rows; a gradient costs (A^2 + P^2 / 2) times the rows, and R^2 (F + P) per task, where the other kernel
takes about 2 F^3 per task.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._population import add_gradient_of_cholesky, feature_cholesky, membership
from bayes_mtl.kernels._small_linalg import (
    add_multiple,
    cholesky_in_place,
    dot,
    invert_factor,
    solve_lower,
    solve_lower_transposed,
)
from bayes_mtl.kernels.compile import subroutine

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
    root, target : (T, R, F), (T, R)
        R_t and y_t, the task first; rows of zeros where a task has fewer.
    sd, correlation, loadings, unique_sd, sigma, mean, effect_scale, rest, count, inside, column, design
        As in `_collapsed_gaussian.kernel`.
    """
    n_tasks, n_rows, n_columns = root.shape
    n_varying, n_inside, n_common, n_factors = (
        sd.shape[0],
        inside.shape[0],
        column.shape[0],
        loadings.shape[1],
    )
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
    for t in range(sigma.shape[0]):
        if not sigma[t] > 0.0:
            return

    L = feature_cholesky(sd, correlation, inside)
    is_inside = membership(inside, n_varying)

    # First pass: rows whitened by each task's own deviation, all of them side by side.
    V = np.empty((n_tasks, n_rows, n_columns))
    J = np.zeros((n_tasks, n_rows, n_varying))
    v = np.empty((n_tasks, n_rows))
    U = np.empty((size, n_tasks, n_rows))
    M = np.empty((n_rows, n_varying))
    K = np.empty((n_rows, n_rows))
    logp = 0.0
    for t in range(n_tasks):
        s = sigma[t] if per_task_sigma else sigma[0]
        centre = mean[t] if per_task_mean else mean[0]
        for r in range(n_rows):
            v[t, r] = target[t, r] - dot(root[t, r], centre)
            times_factor(J[t, r], root[t, r], L)
            for p in range(n_varying):
                M[r, p] = J[t, r, p] * (unique_sd[t] if is_inside[p] else 1.0)
            for f in range(n_columns):
                V[t, r, f] = root[t, r, f]
            for i in range(r + 1):
                K[r, i] = dot(M[r], M[i])
            K[r, r] += s * s
        if not cholesky_in_place(K):
            return
        solve_rows(K, V[t])
        solve_rows(K, J[t])
        solve_lower(K, v[t])
        logp -= (count[t] - n_rows) * np.log(s) + count[t] * _HALF_LOG_2PI
        logp -= 0.5 * (dot(v[t], v[t]) + rest[t] / (s * s))
        for r in range(n_rows):
            logp -= np.log(K[r, r])
            for c in range(n_common):
                U[c, t, r] = effect_scale[c] * design[c, t] * V[t, r, column[c]]
            for k in range(n_factors):
                for x in range(n_inside):
                    U[n_common + k * n_inside + x, t, r] = loadings[t, k] * J[t, r, inside[x]]

    # alpha ~ N(m, C) given the data.
    everything = U.reshape(size, n_tasks * n_rows)
    left = v.reshape(n_tasks * n_rows).copy()
    Q = np.empty((size, size))
    m = np.empty(size)
    lower_product(Q, everything, everything)
    for i in range(size):
        Q[i, i] += 1.0
        m[i] = dot(everything[i], left)
    if not cholesky_in_place(Q):
        return
    solve_lower(Q, m)
    for i in range(size):
        logp += 0.5 * m[i] * m[i] - np.log(Q[i, i])
    solve_lower_transposed(Q, m)
    if not abs(logp) < np.inf:
        return
    inverse = np.empty((size, size))  # of Q's factor, transposed
    invert_factor(Q, inverse)

    # Second pass: the gradient. With X = Q^-1/2 U', W = X'X and U C = X'Q^-1/2.
    for i in range(size):
        add_multiple(left, everything[i], -m[i])
    e = left.reshape(n_tasks, n_rows)
    D = np.empty((n_varying, n_tasks, n_rows))
    W = np.empty((n_rows, n_rows))
    NJ = np.empty((n_rows, n_varying))
    moved = np.empty(n_rows)
    X = np.empty((size, n_rows))
    for t in range(n_tasks):
        s = sigma[t] if per_task_sigma else sigma[0]
        for i in range(size):
            for r in range(n_rows):
                X[i, r] = U[i, t, r]
        solve_rows(Q, X)
        W[:] = 0.0
        for i in range(size):
            for r in range(n_rows):
                add_multiple(W[r, : r + 1], X[i, : r + 1], X[i, r])
        noise = rest[t] / (s * s) - count[t] + dot(e[t], e[t])
        for r in range(n_rows):
            noise += W[r, r]
            for i in range(r + 1):
                W[r, i] += e[t, r] * e[t, i]
                W[i, r] = W[r, i]
            W[r, r] -= 1.0
        NJ[:] = 0.0
        for r in range(n_rows):
            for i in range(n_rows):
                add_multiple(NJ[r], J[t, i], W[r, i])
        unique = 0.0
        for p in range(n_varying):
            square = unique_sd[t] * unique_sd[t] if is_inside[p] else 1.0
            total = 0.0
            for r in range(n_rows):
                total += J[t, r, p] * NJ[r, p]
                D[p, t, r] = square * NJ[r, p]
            noise -= square * total
            if is_inside[p]:
                unique += total
        d_unique[t] = unique_sd[t] * unique
        if per_task_sigma:
            d_sigma[t] = noise / s
        else:
            d_sigma[0] += noise / s
        for r in range(n_rows):
            add_multiple(d_mean[t] if per_task_mean else d_mean[0], V[t, r], e[t, r])
        for k in range(n_factors):
            for x in range(n_inside):
                a, p = n_common + k * n_inside + x, inside[x]
                for r in range(n_rows):
                    moved[r] = e[t, r] * m[a]
                for i in range(a, size):
                    add_multiple(moved, X[i], -inverse[a, i])
                total = 0.0
                for r in range(n_rows):
                    total += J[t, r, p] * moved[r]
                    D[p, t, r] += loadings[t, k] * moved[r]
                d_loadings[t, k] += total

    across = np.empty((n_varying, n_tasks * n_rows))
    for t in range(n_tasks):
        for r in range(n_rows):
            for p in range(n_varying):
                across[p, t * n_rows + r] = V[t, r, p]
    d_L = np.empty((n_varying, n_varying))
    lower_product(d_L, across, D.reshape(n_varying, n_tasks * n_rows))
    for c in range(n_common):
        if effect_scale[c] != 0.0:
            spread = dot(inverse[c, c:], inverse[c, c:])
            d_effect_scale[c] = (m[c] * m[c] + spread - 1.0) / effect_scale[c]
    add_gradient_of_cholesky(d_L, sd, correlation, inside, d_sd, d_correlation)
    value[0] = logp


@subroutine
def times_factor(out: FloatArray, row: FloatArray, L: FloatArray) -> None:
    """Add row L to `out`, for a lower triangular L that may be nearly diagonal."""
    for p in range(L.shape[0]):
        for q in range(p + 1):
            if L[p, q] != 0.0:
                add_multiple(out[q : p + 1], L[p, q : p + 1], row[p])
                break


@subroutine
def solve_rows(factor: FloatArray, X: FloatArray) -> None:
    """Overwrite X by factor^-1 X, row after row, four of those before it at a time."""
    for i in range(X.shape[0]):
        j = 0
        while j + 4 <= i:
            subtract_four(X[i], factor[i, j : j + 4], X[j], X[j + 1], X[j + 2], X[j + 3])
            j += 4
        while j < i:
            add_multiple(X[i], X[j], -factor[i, j])
            j += 1
        divide(X[i], factor[i, i])


@subroutine
def subtract_four(
    out: FloatArray, by: FloatArray, a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray
) -> None:
    """Subtract by_0 a + by_1 b + by_2 c + by_3 d."""
    one, two, three, four = by[0], by[1], by[2], by[3]
    for r in range(out.shape[0]):
        out[r] -= one * a[r] + two * b[r] + three * c[r] + four * d[r]


@subroutine
def divide(out: FloatArray, by: float) -> None:
    """Divide by a number."""
    for r in range(out.shape[0]):
        out[r] /= by


@subroutine
def lower_product(out: FloatArray, a: FloatArray, b: FloatArray) -> None:
    """Write the lower triangle of a b', two by two inner products at a time; what is above is not read."""
    n = out.shape[0]
    i = 0
    while i < n:
        above, j = min(i + 1, n - 1), 0
        while j <= i:
            beside = min(j + 1, n - 1)
            products(out[i], out[above], j, beside, a[i], a[above], b[j], b[beside])
            j += 2
        i += 2


@subroutine
def products(
    lower: FloatArray,
    upper: FloatArray,
    j: int,
    k: int,
    a: FloatArray,
    b: FloatArray,
    c: FloatArray,
    d: FloatArray,
) -> None:
    """Write ac, ad and bc, bd to places j and k of two rows."""
    one, two, three, four = 0.0, 0.0, 0.0, 0.0
    for r in range(a.shape[0]):
        one += a[r] * c[r]
        two += a[r] * d[r]
        three += b[r] * c[r]
        four += b[r] * d[r]
    lower[j], lower[k] = one, two
    upper[j], upper[k] = three, four
