"""Log-likelihood of Gaussian outcomes whose coefficients differ by task, at a cost that rows do not enter.

The rows of task t enter as F pseudo-rows (`data.pseudo_rows`): with e_t = y_t - R_t beta_t,

    log p = -sum_t [ n_t log(s_t sqrt(2 pi)) + (|e_t|^2 + rest_t) / (2 s_t^2) ].
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.kernels.compile import allocating_subroutine

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def kernel(
    beta: FloatArray,
    sigma: FloatArray,
    root: FloatArray,
    target: FloatArray,
    rest: FloatArray,
    count: FloatArray,
    value: FloatArray,
    d_beta: FloatArray,
    d_sigma: FloatArray,
) -> None:
    """Write the log-likelihood and its derivatives; where it is not finite, -inf and zeros.

    Parameters
    ----------
    beta : (T, F)
    sigma : (T,) or (1,)
    root, target, rest, count : (F, F, T), (F, T), (T,), (T,)
        R_t, y_t, rest_t, and the number of rows n_t.
    value, d_beta, d_sigma
        Outputs.
    """
    d_beta[:] = 0.0
    d_sigma[:] = 0.0
    value[0] = log_likelihood(beta, sigma, root, target, rest, count, d_beta, d_sigma)
    if not abs(value[0]) < np.inf:
        value[0] = -np.inf
        d_beta[:] = 0.0
        d_sigma[:] = 0.0


@allocating_subroutine
def log_likelihood(
    beta: FloatArray,
    sigma: FloatArray,
    root: FloatArray,
    target: FloatArray,
    rest: FloatArray,
    count: FloatArray,
    d_beta: FloatArray,
    d_sigma: FloatArray,
) -> float:
    """Return the log-likelihood, and add its derivatives."""
    n_tasks, n_columns = beta.shape
    logp = 0.0
    left = np.empty(n_columns)
    for t in range(n_tasks):
        s = sigma[t if sigma.shape[0] > 1 else 0]
        if not s > 0.0:
            return -np.inf
        precision = 1.0 / (s * s)
        square = rest[t]
        for f in range(n_columns):
            left[f] = target[f, t]
            for g in range(n_columns):
                left[f] -= root[f, g, t] * beta[t, g]
            square += left[f] * left[f]
        for f in range(n_columns):
            for g in range(n_columns):
                d_beta[t, g] += root[f, g, t] * left[f] * precision
        logp -= count[t] * (np.log(s) + _HALF_LOG_2PI) + 0.5 * square * precision
        d_sigma[t if sigma.shape[0] > 1 else 0] += (square * precision - count[t]) / s
    return logp
