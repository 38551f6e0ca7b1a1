"""Log-likelihoods of generalised linear models whose coefficients differ by task.

Rows are sorted by task, so X is read once: eta_i = x_i . beta_t, add w_i log p(y_i | eta_i), and
grad_t += w_i (d log p / d eta) x_i in the same pass. A linear predictor that is not finite gives -inf, not a
NaN that would stop a chain.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray


def bernoulli(
    beta: FloatArray,
    y: FloatArray,
    X: FloatArray,
    weights: FloatArray,
    offset: FloatArray,
    starts: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Bernoulli with logit link: log p = y eta - log(1 + exp(eta)).

    Parameters
    ----------
    beta : (T, F)
    y, weights, offset : (N,)
    X : (N, F)
    starts : (T + 1,)
        Task t owns rows starts[t] to starts[t + 1].

    Returns
    -------
    tuple
        Value (0-d) and derivative by beta.
    """
    n_tasks, n_columns = beta.shape
    gradient = np.zeros((n_tasks, n_columns))
    total = 0.0
    for t in range(n_tasks):
        for i in range(starts[t], starts[t + 1]):
            eta = offset[i]
            for p in range(n_columns):
                eta += X[i, p] * beta[t, p]
            # With e = exp(-|eta|): log(1 + exp(eta)) = max(eta, 0) + log1p(e), and 1 / (1 + exp(-eta))
            # is 1 / (1 + e) for eta >= 0, e / (1 + e) below.
            e = np.exp(-abs(eta))
            total += weights[i] * (y[i] * eta - max(eta, 0.0) - np.log1p(e))
            mean = (1.0 if eta >= 0.0 else e) / (1.0 + e)
            slope = weights[i] * (y[i] - mean)
            for p in range(n_columns):
                gradient[t, p] += slope * X[i, p]
    if not np.isfinite(total):
        return np.asarray(-np.inf), np.zeros((n_tasks, n_columns))
    return np.asarray(total), gradient
