"""The density of rows given all others, from the law that their coefficients have given all rows.

For a row with mean f_i, posterior variance k_i and noise s_i^2, with l_i = k_i / s_i^2,

    y_i | the other rows  ~  N(y_i - (y_i - f_i) / (1 - l_i), s_i^2 / (1 - l_i)).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData

_PRODUCTS = 2**18  # in one matrix product: BLAS leaves so few to one thread, and a cache holds its result
_LEAST_ROWS = 16
_LOG_2PI = float(np.log(2 * np.pi))


def log_density(
    beta: FloatArray,
    covariance: FloatArray,
    sigma: FloatArray,
    X: FloatArray,
    y: FloatArray,
    precision: FloatArray,
) -> FloatArray:
    """Return log p(y_i | all other rows) of rows of one task, (D, n).

    Parameters
    ----------
    beta, covariance : (D, F), (D, F, F)
        Of the coefficients given all rows.
    sigma : (D,)
        Noise of a row of precision 1.
    X, y, precision : (n, F), (n,) or (D, n), (n,)
    """
    # k_i is one inner product of the distinct products x_f x_g with the covariances.
    f, g = np.triu_indices(X.shape[1])
    covariances = covariance[:, f, g] * (np.where(f == g, 1.0, 2.0) / sigma[:, None] ** 2)
    slopes, root = beta / sigma[:, None], np.sqrt(precision)
    out = np.empty((len(beta), len(X)))
    step = max(_LEAST_ROWS, _PRODUCTS // (len(beta) * max(1, len(f))))
    for start in range(0, len(X), step):
        at = slice(start, start + step)
        x, error = X[at] * root[at, None], out[:, at]
        np.divide(y[..., at] * root[at], sigma[:, None], out=error)
        error -= slopes @ x.T
        spare = covariances @ (x[:, f] * x[:, g]).T
        np.subtract(1.0, spare, out=spare)
        error *= error
        error /= spare
        error -= np.log(spare, out=spare)
        error += (_LOG_2PI + 2.0 * np.log(sigma))[:, None]
        error -= 2.0 * np.log(root[at])
        error *= -0.5
    return out


def of_tasks(data: TaskData, rows: slice) -> Iterator[tuple[int, slice]]:
    """Go through the tasks that some neighbouring rows belong to, with their places among these rows."""
    first, last, _ = rows.indices(data.n_rows)
    t = int(np.searchsorted(data.starts, first, side="right")) - 1
    while t < data.n_tasks and data.starts[t] < last:
        begin, end = max(data.starts[t], first) - first, min(data.starts[t + 1], last) - first
        if begin < end:
            yield t, slice(int(begin), int(end))
        t += 1
