"""Tasks that each belong to one of several components, whose label is summed out afterwards.

Under component k, beta_t = mean_t + centre_k + L_k e_t with e_t ~ N(0, I): tasks are independent given the
components, and everything is done component by component, with the symbols of `_information` for A = L_k.
Task t under component k has the evidence

    log p_tk = -n_t log(s_t sqrt(2 pi)) - (|y_t - R_t m_tk|^2 + rest_t) / (2 s_t^2) + |y'|^2 / 2 - log|K|

and the coordinates z of its coefficients are, as in `_whitening`, e = K^-T (y' + z).
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._information import inform, pull_back_information
from bayes_mtl.kernels._lanes import block_length, solve_transposed
from bayes_mtl.kernels.compile import allocating_subroutine, subroutine

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def evidence(
    centre: FloatArray,
    cholesky: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    root: FloatArray,
    target: FloatArray,
    rest: FloatArray,
    count: FloatArray,
    value: FloatArray,
) -> None:
    """Write the log density of the outcomes of each task under each component; -inf where it is not finite.

    Parameters
    ----------
    centre : (K, F)
    cholesky : (K, P, P) or (1, P, P)
        L_k, of which the lower triangles are read; the first P of the F columns vary.
    sigma, mean, root, target
        As in `_collapsed_gaussian.kernel`.
    rest, count : (T,)
        As in `_gaussian_tasks.kernel`.
    value : (T, K)
        Output.
    """
    n_tasks, n_columns, n_varying = count.shape[0], root.shape[0], cholesky.shape[1]
    length = block_length(n_columns, n_columns, n_tasks)
    work = _workspace(n_columns, n_varying, length)
    own = np.arange(n_varying)
    residual = np.empty((n_columns, length))
    value[:] = -np.inf
    for k in range(centre.shape[0]):
        L, moved = _component(k, centre, cholesky, mean)
        if not _usable(L, moved, sigma):
            continue
        for start in range(0, n_tasks, length):
            n = min(length, n_tasks - start)
            if not _inform(work, root, target, sigma, moved, own, L, start, n):
                continue
            _write_residual(residual, root, target, moved, start, n)
            Y, log_det = work[4], work[7]
            for t in range(n):
                s = sigma[start + t if sigma.shape[0] > 1 else 0]
                square, gained = rest[start + t], 0.0
                for f in range(n_columns):
                    square += residual[f, t] * residual[f, t]
                for i in range(n_varying):
                    gained += Y[i, n_columns, t] * Y[i, n_columns, t]
                found = -count[start + t] * (np.log(s) + _HALF_LOG_2PI) - 0.5 * square / (s * s)
                found += 0.5 * gained - log_det[t]
                if abs(found) < np.inf:
                    value[start + t, k] = found


def evidence_reverse(
    centre: FloatArray,
    cholesky: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    root: FloatArray,
    target: FloatArray,
    rest: FloatArray,
    count: FloatArray,
    d_value: FloatArray,
    d_centre: FloatArray,
    d_cholesky: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
) -> None:
    """Pull the cotangent of `evidence` back to its first four inputs."""
    n_tasks, n_columns, n_varying = count.shape[0], root.shape[0], cholesky.shape[1]
    length = block_length(n_columns, n_columns, n_tasks)
    work, back = _workspace(n_columns, n_varying, length), _cotangents(n_columns, n_varying, length)
    own = np.arange(n_varying)
    residual = np.empty((n_columns, length))
    d_beta = np.zeros((n_tasks, n_columns))
    d_centre[:] = 0.0
    d_cholesky[:] = 0.0
    d_sigma[:] = 0.0
    d_mean[:] = 0.0
    for k in range(centre.shape[0]):
        L, moved = _component(k, centre, cholesky, mean)
        if not _usable(L, moved, sigma):
            continue
        for start in range(0, n_tasks, length):
            n = min(length, n_tasks - start)
            if not _inform(work, root, target, sigma, moved, own, L, start, n):
                continue
            _write_residual(residual, root, target, moved, start, n)
            H, K, Y = work[0], work[3], work[4]
            d_Y, d_K = back[2], back[3]
            _clear(back)
            for t in range(n):
                weight = d_value[start + t, k]
                at = start + t if sigma.shape[0] > 1 else 0
                square = rest[start + t]
                for f in range(n_columns):
                    square += residual[f, t] * residual[f, t]
                    d_beta[start + t, f] = weight * H[f, n_columns, t]  # of the residual, by the mean
                d_sigma[at] += weight * (square / sigma[at] ** 2 - count[start + t]) / sigma[at]
                for i in range(n_varying):
                    d_Y[i, n_columns, t] = weight * Y[i, n_columns, t]
                    d_K[i, i, t] = -weight * K[i, i, t]
            _pull_back(
                k, work, back, sigma, moved, own, L, d_beta, d_centre, d_cholesky, d_sigma, d_mean, start, n
            )


def coefficients(
    centre: FloatArray,
    cholesky: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    density: FloatArray,
    beta: FloatArray,
) -> None:
    """Write each task's coefficients under each component, and the log density of the coordinates under it.

    Where that is not finite, it is -inf and the coefficients are their means.

    Parameters
    ----------
    centre, cholesky, sigma, mean, root, target
        As in `evidence`; pseudo-rows may be approximate.
    z : (T, P)
        Coordinates.
    density, beta : (T, K), (K, T, F)
        Outputs.
    """
    n_tasks, n_columns, n_varying = z.shape[0], root.shape[0], cholesky.shape[1]
    length = block_length(n_columns, n_columns, n_tasks)
    work = _workspace(n_columns, n_varying, length)
    own, e = np.arange(n_varying), np.empty((n_varying, 1, length))
    density[:] = -np.inf
    for k in range(centre.shape[0]):
        L, moved = _component(k, centre, cholesky, mean)
        for t in range(n_tasks):
            for f in range(n_columns):
                beta[k, t, f] = moved[t if moved.shape[0] > 1 else 0, f]
        if not _usable(L, moved, sigma):
            continue
        for start in range(0, n_tasks, length):
            n = min(length, n_tasks - start)
            if not _inform(work, root, target, sigma, moved, own, L, start, n):
                continue
            _write_deviation(e, work, z, start, n)
            log_det = work[7]
            for t in range(n):
                square = 0.0
                for i in range(n_varying):
                    square += e[i, 0, t] * e[i, 0, t]
                found = -n_varying * _HALF_LOG_2PI - 0.5 * square - log_det[t]
                if abs(found) < np.inf:
                    density[start + t, k] = found
                    for p in range(n_varying):
                        for i in range(p + 1):
                            beta[k, start + t, p] += L[p, i] * e[i, 0, t]


def coefficients_reverse(
    centre: FloatArray,
    cholesky: FloatArray,
    sigma: FloatArray,
    mean: FloatArray,
    z: FloatArray,
    root: FloatArray,
    target: FloatArray,
    d_density: FloatArray,
    d_beta: FloatArray,
    d_centre: FloatArray,
    d_cholesky: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    d_z: FloatArray,
) -> None:
    """Pull cotangents of the outputs of `coefficients` back to its first five inputs."""
    n_tasks, n_columns, n_varying = z.shape[0], root.shape[0], cholesky.shape[1]
    length = block_length(n_columns, n_columns, n_tasks)
    work, back = _workspace(n_columns, n_varying, length), _cotangents(n_columns, n_varying, length)
    own, e = np.arange(n_varying), np.empty((n_varying, 1, length))
    d_w = np.empty((n_varying, length))
    d_centre[:] = 0.0
    d_cholesky[:] = 0.0
    d_sigma[:] = 0.0
    d_mean[:] = 0.0
    d_z[:] = 0.0
    for k in range(centre.shape[0]):
        L, moved = _component(k, centre, cholesky, mean)
        if not _usable(L, moved, sigma):
            continue
        for start in range(0, n_tasks, length):
            n = min(length, n_tasks - start)
            if not _inform(work, root, target, sigma, moved, own, L, start, n):
                continue
            _write_deviation(e, work, z, start, n)
            K = work[3]
            d_Y, d_K, d_A = back[2], back[3], back[6]
            _clear(back)
            # e = K^-T w, w = y' + z, so d_w = K^-1 d_e and d_K = -e d_w'.
            for i in range(n_varying):
                for t in range(n):
                    d_w[i, t] = -d_density[start + t, k] * e[i, 0, t]
                    for p in range(i, n_varying):
                        d_w[i, t] += L[p, i] * d_beta[k, start + t, p]
                    for m in range(i):
                        d_w[i, t] -= K[i, m, t] * d_w[m, t]
                    d_w[i, t] *= K[i, i, t]
                    d_z[start + t, i] += d_w[i, t]
                    d_Y[i, n_columns, t] = d_w[i, t]
                    for p in range(i, n_varying):
                        d_A[p, i, t] = d_beta[k, start + t, p] * e[i, 0, t]
            for i in range(n_varying):
                for j in range(n_varying):
                    for t in range(n):
                        d_K[i, j, t] = -e[i, 0, t] * d_w[j, t]
                for t in range(n):
                    d_K[i, i, t] -= d_density[start + t, k] * K[i, i, t]
            _pull_back(
                k,
                work,
                back,
                sigma,
                moved,
                own,
                L,
                d_beta[k],
                d_centre,
                d_cholesky,
                d_sigma,
                d_mean,
                start,
                n,
            )


@allocating_subroutine
def _workspace(n_columns: int, n_varying: int, length: int) -> tuple[FloatArray, ...]:
    """Return what `inform` writes for a block of tasks; all of S is one."""
    return (
        np.empty((n_columns, n_columns + 1, length)),  # H
        np.empty((n_columns, n_varying, length)),  # HA
        np.empty((n_varying, n_varying, length)),  # W
        np.empty((n_varying, n_varying, length)),  # K
        np.empty((n_varying, n_columns + 1, length)),  # Y
        np.empty((n_columns + 1, n_columns, length)),  # G
        np.ones((n_varying, length)),  # S
        np.empty(length),  # log_det
    )


@allocating_subroutine
def _cotangents(n_columns: int, n_varying: int, length: int) -> tuple[FloatArray, ...]:
    """Return what `pull_back_information` reads."""
    return (
        np.empty((n_columns, n_columns, length)),  # d_G
        np.empty((n_columns, length)),  # d_g
        np.empty((n_varying, n_columns + 1, length)),  # d_Y
        np.empty((n_varying, n_varying, length)),  # d_K
        np.empty((n_varying, n_varying, length)),  # d_W
        np.empty((n_columns, length)),  # d_b
        np.empty((n_varying, n_varying, length)),  # d_A
        np.empty(length),  # d_scale
    )


@subroutine
def _clear(back: tuple[FloatArray, ...]) -> None:
    d_G, d_g, d_Y, d_K, d_W, d_b, d_A, d_scale = back
    d_G[:] = 0.0
    d_g[:] = 0.0
    d_Y[:] = 0.0
    d_K[:] = 0.0
    d_W[:] = 0.0
    d_b[:] = 0.0
    d_A[:] = 0.0
    d_scale[:] = 0.0


@allocating_subroutine
def _component(
    k: int, centre: FloatArray, cholesky: FloatArray, mean: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return L_k, and the means of the coefficients under component k."""
    moved = mean.copy()
    for t in range(mean.shape[0]):
        for f in range(mean.shape[1]):
            moved[t, f] += centre[k, f]
    return cholesky[k if cholesky.shape[0] > 1 else 0], moved


@subroutine
def _usable(L: FloatArray, moved: FloatArray, sigma: FloatArray) -> bool:
    total = moved.sum() + sigma.sum()
    for p in range(L.shape[0]):
        for i in range(p + 1):
            total += L[p, i]
    for scale in sigma:
        if not scale > 0.0:
            return False
    return bool(abs(total) < np.inf)


@subroutine
def _inform(
    work: tuple[FloatArray, ...],
    root: FloatArray,
    target: FloatArray,
    sigma: FloatArray,
    moved: FloatArray,
    own: IntArray,
    L: FloatArray,
    start: int,
    n: int,
) -> bool:
    H, HA, W, K, Y, G, S, log_det = work
    return inform(H, HA, W, K, Y, G, S, log_det, root, target, sigma, moved, own, L, start, n)


@subroutine
def _write_residual(
    residual: FloatArray, root: FloatArray, target: FloatArray, moved: FloatArray, start: int, n: int
) -> None:
    """Write y_t - R_t m_t."""
    for f in range(root.shape[0]):
        for t in range(n):
            residual[f, t] = target[f, start + t]
        for g in range(root.shape[1]):
            for t in range(n):
                at = start + t if moved.shape[0] > 1 else 0
                residual[f, t] -= root[f, g, start + t] * moved[at, g]


@subroutine
def _write_deviation(e: FloatArray, work: tuple[FloatArray, ...], z: FloatArray, start: int, n: int) -> None:
    """Write e = K^-T (y' + z)."""
    K, Y = work[3], work[4]
    last = Y.shape[1] - 1
    for i in range(z.shape[1]):
        for t in range(n):
            e[i, 0, t] = Y[i, last, t] + z[start + t, i]
    solve_transposed(K, e, n)


@allocating_subroutine
def _pull_back(
    k: int,
    work: tuple[FloatArray, ...],
    back: tuple[FloatArray, ...],
    sigma: FloatArray,
    moved: FloatArray,
    own: IntArray,
    L: FloatArray,
    d_beta: FloatArray,
    d_centre: FloatArray,
    d_cholesky: FloatArray,
    d_sigma: FloatArray,
    d_mean: FloatArray,
    start: int,
    n: int,
) -> None:
    """Add what a block of tasks says by way of component k."""
    H, HA, _, K, Y, _, S, _ = work
    d_G, d_g, d_Y, d_K, d_W, d_b, d_A, d_scale = back
    n_tasks = start + n
    d_L = np.zeros(L.shape)
    d_unique, nowhere = np.zeros(n_tasks), np.zeros(L.shape[0], dtype=np.bool_)
    by_sigma, by_mean = np.zeros(sigma.shape), np.zeros(moved.shape)
    pull_back_information(
        H, HA, K, Y, S, sigma, moved, own, L, nowhere, d_beta,
        d_G, d_g, d_Y, d_K, d_W, d_b, d_A, d_scale, d_L, d_unique, by_sigma, by_mean, start, n,
    )  # fmt: skip
    target = k if d_cholesky.shape[0] > 1 else 0
    for p in range(L.shape[0]):
        for i in range(p + 1):
            d_cholesky[target, p, i] += d_L[p, i]
    for t in range(sigma.shape[0]):
        d_sigma[t] += by_sigma[t]
    for t in range(moved.shape[0]):
        for f in range(moved.shape[1]):
            d_mean[t, f] += by_mean[t, f]
            d_centre[k, f] += by_mean[t, f]
