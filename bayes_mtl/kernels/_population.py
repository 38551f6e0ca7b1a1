"""What the kernels share: how hyperparameters become the design of the Gaussian coefficients."""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._lanes import BoolArray, weighted_sum
from bayes_mtl.kernels._small_linalg import (
    cholesky_in_place,
    dot,
    pull_back_cholesky_shared,
    solve_lower,
    solve_lower_transposed,
)
from bayes_mtl.kernels.compile import allocating_subroutine, subroutine


@allocating_subroutine
def feature_cholesky(sd: FloatArray, correlation: FloatArray, inside: IntArray) -> FloatArray:
    """Return L = diag(sd) C, with C the identity outside the task covariance."""
    L = np.zeros((sd.shape[0], sd.shape[0]))
    for p in range(sd.shape[0]):
        L[p, p] = sd[p]
    for x in range(inside.shape[0]):
        for y in range(x + 1):
            L[inside[x], inside[y]] = sd[inside[x]] * correlation[x, y]
    return L


@allocating_subroutine
def add_gradient_of_cholesky(
    d_L: FloatArray,
    sd: FloatArray,
    correlation: FloatArray,
    inside: IntArray,
    d_sd: FloatArray,
    d_correlation: FloatArray,
) -> None:
    """Pull the derivative by L (its lower triangle) back to `sd` and `correlation`."""
    is_inside = membership(inside, sd.shape[0])
    for p in range(sd.shape[0]):
        if not is_inside[p]:
            d_sd[p] += d_L[p, p]
    for x in range(inside.shape[0]):
        for y in range(x + 1):
            entry = d_L[inside[x], inside[y]]
            d_sd[inside[x]] += entry * correlation[x, y]
            d_correlation[x, y] += entry * sd[inside[x]]


@allocating_subroutine
def membership(inside: IntArray, n_varying: int) -> BoolArray:
    """Return which of the varying features are inside the task covariance."""
    found = np.zeros(n_varying, dtype=np.bool_)
    for x in range(inside.shape[0]):
        found[inside[x]] = True
    return found


# The design Z_t (F, A) says what one unit of each common variable alpha does to the coefficients of task t:
# column c < C is effect_scale[c] design[c, t], below `design`, at coefficient column[c]; column (k, x) is
# lambda_tk L_.x. It is never built,
# since sums over k and over x can be taken apart: with G' = L'G L, the block (k, l) of sum_t Z_t'G_t Z_t is
# sum_t lambda_tk lambda_tl G'_t. In what follows arrays are a block of n tasks, tasks last; lam[k, t] are its
# loadings. Scalars are read before a loop over tasks: a loop that stores may not read them again as it is
# made into vector code.


@subroutine
def scaled(effect: FloatArray, design: FloatArray, scale: float, start: int, n: int) -> None:
    """Write how far a common effect moves the tasks of a block; lanes beyond them do not move."""
    for t in range(n):
        effect[t] = scale * design[start + t]
    for t in range(n, effect.shape[0]):
        effect[t] = 0.0


@subroutine
def project(
    GL: FloatArray,
    LGL: FloatArray,
    Lg: FloatArray,
    G: FloatArray,
    g: FloatArray,
    L: FloatArray,
    inside: IntArray,
    n: int,
) -> None:
    """Write G L (F, I), the lower triangle of L'G L (I, I), and L'g (I), for L of the features inside."""
    for x in range(inside.shape[0]):
        for t in range(n):
            Lg[x, t] = 0.0
        for f in range(GL.shape[0]):
            for t in range(n):
                GL[f, x, t] = 0.0
        for p in range(inside[x], L.shape[0]):
            entry = L[p, inside[x]]
            if entry == 0.0:
                continue
            for t in range(n):
                Lg[x, t] += entry * g[p, t]
            for f in range(GL.shape[0]):
                for t in range(n):
                    GL[f, x, t] += G[f, p, t] * entry
    for x in range(inside.shape[0]):
        for y in range(x + 1):
            for t in range(n):
                LGL[x, y, t] = 0.0
            for p in range(inside[x], L.shape[0]):
                entry = L[p, inside[x]]
                for t in range(n):
                    LGL[x, y, t] += entry * GL[p, y, t]


@subroutine
def add_information(
    Q: FloatArray,
    h: FloatArray,
    G: FloatArray,
    g: FloatArray,
    GL: FloatArray,
    LGL: FloatArray,
    Lg: FloatArray,
    lam: FloatArray,
    column: IntArray,
    design: FloatArray,
    weight: FloatArray,
    n: int,
) -> None:
    """Add sum_t Z'G Z to Q, at least in its lower triangle, and sum_t Z'g to h; `weight` is overwritten."""
    n_common, n_inside = column.shape[0], LGL.shape[0]
    for c in range(n_common):
        f = column[c]
        h[c] += weighted_sum(design[c], g[f], n)
        for k in range(lam.shape[0]):
            for x in range(n_inside):
                entry = 0.0
                for t in range(n):
                    entry += design[c, t] * lam[k, t] * GL[f, x, t]
                Q[n_common + k * n_inside + x, c] += entry
        for e in range(c + 1):
            other = column[e]
            entry = 0.0
            for t in range(n):
                entry += design[c, t] * design[e, t] * G[f, other, t]
            Q[c, e] += entry
    for k in range(lam.shape[0]):
        i = n_common + k * n_inside
        for x in range(n_inside):
            h[i + x] += weighted_sum(lam[k], Lg[x], n)
        for other in range(k + 1):
            j = n_common + other * n_inside
            for t in range(n):
                weight[t] = lam[k, t] * lam[other, t]
            for x in range(n_inside):
                for y in range(x + 1):
                    entry = 0.0
                    for t in range(n):
                        entry += weight[t] * LGL[x, y, t]
                    Q[i + x, j + y] += entry
                    if y < x:
                        Q[i + y, j + x] += entry


@allocating_subroutine
def spread(
    ZX: FloatArray,
    Phi: FloatArray,
    d_lam: FloatArray,
    X: FloatArray,
    GL: FloatArray,
    LGL: FloatArray,
    lam: FloatArray,
    L: FloatArray,
    inside: IntArray,
    column: IntArray,
    design: FloatArray,
    scale: float,
    n: int,
) -> None:
    """Pull a symmetric X (A, A) back through Q = sum_t Z'G Z, for d_Z = scale * G Z X.

    Adds to d_lam (K), and writes ZX = Z X (lambda x I) (F, I), from which d_L = scale * G ZX, and
    Phi = Z X Z' (F, F).
    """
    n_common, n_inside, n_columns = column.shape[0], inside.shape[0], Phi.shape[0]
    middle = np.zeros((n_inside, n_inside, lam.shape[1]))  # sum_kl lambda_k lambda_l X_kl
    across = np.zeros((n_common, n_inside, lam.shape[1]))  # sum_k lambda_k X_ck
    weight, found = np.empty(lam.shape[1]), np.empty(lam.shape[1])
    for k in range(lam.shape[0]):
        i = n_common + k * n_inside
        for c in range(n_common):
            f = column[c]
            for t in range(n):
                found[t] = 0.0
            for x in range(n_inside):
                entry = X[i + x, c]
                for t in range(n):
                    across[c, x, t] += lam[k, t] * entry
                    found[t] += GL[f, x, t] * entry
            for t in range(n):
                d_lam[k, t] += scale * design[c, t] * found[t]
        for other in range(k + 1):
            j = n_common + other * n_inside
            for t in range(n):
                weight[t] = lam[k, t] * lam[other, t] * (0.5 if other == k else 1.0)
                found[t] = 0.0
            for x in range(n_inside):
                for y in range(x + 1):
                    both = X[i + x, j + y] + X[i + y, j + x]
                    each = both if y < x else 0.5 * both
                    for t in range(n):
                        middle[x, y, t] += weight[t] * both
                        found[t] += LGL[x, y, t] * each
            for t in range(n):
                d_lam[k, t] += scale * lam[other, t] * found[t]
            if other < k:
                for t in range(n):
                    d_lam[other, t] += scale * lam[k, t] * found[t]

    for f in range(n_columns):
        for g in range(n_columns):
            for t in range(n):
                Phi[f, g, t] = 0.0
        for x in range(n_inside):
            for t in range(n):
                ZX[f, x, t] = 0.0
    if lam.shape[0] == 0:
        n_inside = 0
    for x in range(n_inside):
        for y in range(n_inside):
            high, low = max(x, y), min(x, y)
            for p in range(inside[y], L.shape[0]):
                entry = L[p, inside[y]]
                for t in range(n):
                    ZX[p, x, t] += entry * middle[high, low, t]
    for c in range(n_common):
        f = column[c]
        for x in range(n_inside):
            for t in range(n):
                across[c, x, t] *= design[c, t]
                ZX[f, x, t] += across[c, x, t]
            for p in range(inside[x], L.shape[0]):
                entry = L[p, inside[x]]
                for t in range(n):
                    Phi[p, f, t] += entry * across[c, x, t]
        for e in range(n_common):
            g, entry = column[e], X[e, c]
            for t in range(n):
                Phi[g, f, t] += entry * design[c, t] * design[e, t]
    for x in range(n_inside):
        for p in range(inside[x], L.shape[0]):
            entry = L[p, inside[x]]
            for f in range(n_columns):
                for t in range(n):
                    Phi[f, p, t] += ZX[f, x, t] * entry


@subroutine
def mix_factors(u: FloatArray, lam: FloatArray, alpha: FloatArray, n: int) -> None:
    """Write u_x = sum_k lambda_k alpha_kx; `alpha` ends with the factors."""
    n_inside = u.shape[0]
    first = alpha.shape[0] - lam.shape[0] * n_inside
    for x in range(n_inside):
        for t in range(n):
            u[x, t] = 0.0
        for k in range(lam.shape[0]):
            entry = alpha[first + k * n_inside + x]
            for t in range(n):
                u[x, t] += lam[k, t] * entry


@subroutine
def apply_design(
    phi: FloatArray,
    u: FloatArray,
    L: FloatArray,
    inside: IntArray,
    alpha: FloatArray,
    column: IntArray,
    design: FloatArray,
    n: int,
) -> None:
    """Write phi = Z alpha (F), with u as `mix_factors` makes it of alpha."""
    for f in range(phi.shape[0]):
        for t in range(n):
            phi[f, t] = 0.0
    for c in range(column.shape[0]):
        f, entry = column[c], alpha[c]
        for t in range(n):
            phi[f, t] += design[c, t] * entry
    for x in range(u.shape[0]):
        for p in range(inside[x], L.shape[0]):
            entry = L[p, inside[x]]
            for t in range(n):
                phi[p, t] += entry * u[x, t]


@subroutine
def add_product_with_loadings(
    d_L: FloatArray, G: FloatArray, ZX: FloatArray, inside: IntArray, scale: float, n: int
) -> None:
    """Add scale * sum_t G ZX, which is the derivative by L, for a ZX as `spread` makes it."""
    for x in range(inside.shape[0]):
        for p in range(inside[x], d_L.shape[0]):
            for f in range(ZX.shape[0]):
                d_L[p, inside[x]] += scale * weighted_sum(G[p, f], ZX[f, x], n)


@subroutine
def pull_back_factors(
    d_lam: FloatArray,
    d_L: FloatArray,
    d_phi: FloatArray,
    u: FloatArray,
    L: FloatArray,
    inside: IntArray,
    alpha: FloatArray,
    pulled: FloatArray,
    n: int,
) -> None:
    """Add the derivatives of Z alpha by the loadings and by L, given its cotangent d_phi (F).

    `pulled` is overwritten.
    """
    n_inside = u.shape[0]
    first = alpha.shape[0] - d_lam.shape[0] * n_inside
    for x in range(n_inside):
        for t in range(n):
            pulled[t] = 0.0
        for p in range(inside[x], L.shape[0]):
            d_L[p, inside[x]] += weighted_sum(d_phi[p], u[x], n)
            entry = L[p, inside[x]]
            for t in range(n):
                pulled[t] += entry * d_phi[p, t]
        for k in range(d_lam.shape[0]):
            entry = alpha[first + k * n_inside + x]
            for t in range(n):
                d_lam[k, t] += pulled[t] * entry


@subroutine
def solve_common(U: FloatArray, shifted: FloatArray, z_common: FloatArray, alpha: FloatArray) -> float:
    """From Q, h and z to alpha = U^-T (U^-1 h + z), for Q = U U'; return -|alpha|^2 / 2 - log|U|.

    Q is overwritten by U, and h, in `shifted`, by U^-1 h + z. Returns -inf if Q is not positive definite.
    """
    if not cholesky_in_place(U):
        return -np.inf
    value = 0.0
    solve_lower(U, shifted)
    for i in range(alpha.shape[0]):
        shifted[i] += z_common[i]
        alpha[i] = shifted[i]
        value -= np.log(U[i, i])
    solve_lower_transposed(U, alpha)
    for i in range(alpha.shape[0]):
        value -= 0.5 * alpha[i] * alpha[i]
    return value


@subroutine
def pull_back_common(
    U: FloatArray,
    shifted: FloatArray,
    z_common: FloatArray,
    alpha: FloatArray,
    weight: float,
    d_alpha: FloatArray,
    d_z_common: FloatArray,
    d_h: FloatArray,
    d_Q: FloatArray,
) -> None:
    """Pull `d_alpha`, complete and overwritten, and `weight` of log|U| back to z, h and Q (from zero)."""
    size = alpha.shape[0]
    solve_lower(U, d_alpha)
    for i in range(size):
        d_z_common[i] = d_alpha[i]
        d_h[i] = d_alpha[i]
    solve_lower_transposed(U, d_h)
    for i in range(size):
        for j in range(i + 1):
            d_Q[i, j] = -alpha[i] * d_alpha[j] - d_h[i] * (shifted[j] - z_common[j])
        d_Q[i, i] -= weight / U[i, i]
    pull_back_cholesky_shared(U, d_Q)


@subroutine
def pull_back_effect_scale(
    U: FloatArray,
    shifted: FloatArray,
    z_common: FloatArray,
    alpha: FloatArray,
    moved: FloatArray,
    d_h: FloatArray,
    d_Q: FloatArray,
    effect_scale: FloatArray,
    d_effect_scale: FloatArray,
) -> None:
    """Write the derivative by the scales of common effects, for d_Z = d_phi alpha' + 2 G Z d_Q + g d_h'.

    Scale c multiplies column c of Z, so scale_c d_scale_c = sum_t (Z_t'd_Z_t)_cc, where Z'd_phi is `moved`,
    sum_t Z'G Z = U U' - I and sum_t Z'g = h = U (shifted - z).
    """
    for c in range(effect_scale.shape[0]):
        if effect_scale[c] == 0.0:
            continue
        h = 0.0
        for j in range(c + 1):
            h += U[c, j] * (shifted[j] - z_common[j])
        total = moved[c] * alpha[c] + h * d_h[c]
        for j in range(alpha.shape[0]):
            low = min(c, j) + 1
            entry = dot(U[c, :low], U[j, :low])
            if j == c:
                entry -= 1.0
            total += 2.0 * d_Q[c, j] * entry
        d_effect_scale[c] = total / effect_scale[c]
