"""Log-likelihoods of generalised linear models whose coefficients differ by task.

Rows are sorted by task, so X is read once: eta_i = x_i . beta_t, add w_i log p(y_i | eta_i), and
grad_t += w_i (d log p / d eta) x_i in the same pass. A linear predictor that is not finite gives -inf, not a
NaN that would stop a chain.

`_sum_rows` is the pass, for any family; what a family adds is a function of some rows

    log_p(y, eta, weights, work) -> float

that returns sum w log p and overwrites eta by w (d log p / d eta), and the first rows of `work`. It sees many
rows at once, of one task or of several, because loops of simple steps run several rows at a time, and because
the logarithm of a product is cheaper than a sum of logarithms. `weights` has one entry if all rows have the
same weight.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.kernels._small_linalg import add_multiple, dot
from bayes_mtl.kernels.compile import subroutine

_LOG2_E = float(np.log2(np.e))
_LOG_2 = float(np.log(2.0))
_MAX_ROWS = 256  # at a time


def bernoulli(
    beta: FloatArray,
    y: FloatArray,
    X: FloatArray,
    weights: FloatArray,
    offset: FloatArray,
    starts: IntArray,
    value: FloatArray,
    gradient: FloatArray,
) -> None:
    """Bernoulli with logit link: log p = y eta - log(1 + exp(eta)).

    Parameters
    ----------
    beta : (T, F)
    y : (N,)
        Numbers of any type.
    X : (F, N)
        Column by column, so that a step of the algebra is a loop over rows. In single or double precision;
        sums are in double precision.
    weights, offset : (N,) or (1,)
        One entry holds for all rows.
    starts : (T + 1,)
        Task t owns rows starts[t] to starts[t + 1].
    value, gradient : (1,), (T, F)
        Outputs: the log-likelihood and its derivative by beta.
    """
    work = np.empty((4, _MAX_ROWS))
    value[0] = _sum_rows(_bernoulli, beta, y, X, weights, offset, starts, gradient, work)


def bernoulli_components(
    beta: FloatArray,
    y: FloatArray,
    X: FloatArray,
    weights: FloatArray,
    offset: FloatArray,
    starts: IntArray,
    value: FloatArray,
    gradient: FloatArray,
) -> None:
    """As `bernoulli`, of each task under each component: `beta` and `gradient` (K, T, F), `value` (T, K)."""
    own, work = np.zeros(2, dtype=np.int64), np.empty((4, _MAX_ROWS))
    for t in range(beta.shape[1]):
        rows = slice(starts[t], starts[t + 1])
        own[1] = rows.stop - rows.start
        w = weights[rows] if len(weights) > 1 else weights
        shift = offset[rows] if len(offset) > 1 else offset
        for k in range(beta.shape[0]):
            value[t, k] = _sum_rows(
                _bernoulli,
                beta[k, t : t + 1],
                y[rows],
                X[:, rows],
                w,
                shift,
                own,
                gradient[k, t : t + 1],
                work,
            )


@subroutine
def _bernoulli(y: FloatArray, eta: FloatArray, weights: FloatArray, work: FloatArray) -> float:
    # With e = exp(-|eta|), q = e / (1 + e), and h = 1 for eta >= 0, else 0:
    # log p = (y - h) eta - log(1 + e), with derivative y - h + (2 h - 1) q. Nothing cancels where y = h.
    n = len(eta)
    e, linear = work[0, :n], work[1, :n]
    for i in range(n):
        linear[i] = -abs(eta[i])
    _exp(linear, e, work[2, :n])
    for i in range(n):
        h = 1.0 if eta[i] >= 0.0 else 0.0
        q = e[i] / (1.0 + e[i])
        linear[i] = (y[i] - h) * eta[i]
        eta[i] = y[i] - h + (2.0 * h - 1.0) * q
    total = 0.0
    if len(weights) == n:
        for i in range(n):
            total += weights[i] * (linear[i] - np.log1p(e[i]))
            eta[i] *= weights[i]
        return total
    for i in range(n):
        total += linear[i]
        eta[i] *= weights[0]
    return weights[0] * (total - _sum_log1p(e))


@subroutine
def _sum_rows(
    log_p: Callable[[FloatArray, FloatArray, FloatArray, FloatArray], float],
    beta: FloatArray,
    y: FloatArray,
    X: FloatArray,
    weights: FloatArray,
    offset: FloatArray,
    starts: IntArray,
    gradient: FloatArray,
    work: FloatArray,
) -> float:
    """Return the value and write the derivative of any family; see `bernoulli`."""
    F = beta.shape[1]
    total = 0.0
    gradient[:] = 0.0
    length = min(_MAX_ROWS, max(16, 16384 // max(1, F)))  # both passes over a block find it in the cache
    first = 0  # task of the block's first row; a block may hold many tasks, or a part of one
    for begin in range(0, X.shape[1], length):
        rows = slice(begin, min(begin + length, X.shape[1]))
        n = rows.stop - begin
        eta = work[3, :n]
        shift = offset[rows] if len(offset) > 1 else offset
        for i in range(n):
            eta[i] = shift[i] if len(offset) > 1 else shift[0]
        while starts[first + 1] <= begin:
            first += 1
        t, low = first, 0
        while low < n:
            high = min(starts[t + 1] - begin, n)
            for p in range(F):
                add_multiple(eta[low:high], X[p, begin + low : begin + high], beta[t, p])
            t, low = t + 1, high
        total += log_p(y[rows], eta, weights[rows] if len(weights) > 1 else weights, work)
        t, low = first, 0
        while low < n:
            high = min(starts[t + 1] - begin, n)
            for p in range(F):
                gradient[t, p] += dot(eta[low:high], X[p, begin + low : begin + high])
            t, low = t + 1, high
    if not abs(total) < np.inf:
        gradient[:] = 0.0
        return -np.inf
    return total


@subroutine
def _exp(x: FloatArray, out: FloatArray, power: FloatArray) -> None:
    """Write exp(x) = 2^k exp(r), |r| < log(2) / 2, several at a time; x beyond +-708 counts as +-708.

    `power` is overwritten.
    """
    n = len(x)
    bits = power.view(np.int64)
    for i in range(n):
        z = min(max(x[i], -708.0), 708.0)
        exponent = np.int32(z * _LOG2_E + 1023.5)  # of 2^k, as floating-point numbers hold it: 1023 more
        bits[i] = np.int64(exponent) << 52
        r = z - (exponent - 1023) * _LOG_2
        s = 1.0 + r * (1.0 / 13.0)
        s = 1.0 + r * s * (1.0 / 12.0)
        s = 1.0 + r * s * (1.0 / 11.0)
        s = 1.0 + r * s * (1.0 / 10.0)
        s = 1.0 + r * s * (1.0 / 9.0)
        s = 1.0 + r * s * (1.0 / 8.0)
        s = 1.0 + r * s * (1.0 / 7.0)
        s = 1.0 + r * s * (1.0 / 6.0)
        s = 1.0 + r * s * (1.0 / 5.0)
        s = 1.0 + r * s * (1.0 / 4.0)
        s = 1.0 + r * s * (1.0 / 3.0)
        s = 1.0 + r * s * (1.0 / 2.0)
        out[i] = 1.0 + r * s
    for i in range(n):
        out[i] *= power[i]


@subroutine
def _sum_log1p(e: FloatArray) -> float:
    """Sum of log(1 + e) for at most 1000 numbers 0 <= e <= 1, which it overwrites."""
    # (1 + a)(1 + b) = 1 + (a + b + a b): small numbers keep their digits.
    n = len(e)
    while n > 1:
        half = (n + 1) // 2
        low, high = e[: n - half], e[half:n]
        for i in range(n - half):
            low[i] += high[i] * (1.0 + low[i])
        n = half
    return np.log1p(e[0])
