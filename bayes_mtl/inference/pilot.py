"""A quick approximate fit, that says roughly what the data say of each task.

It only chooses the coordinates in which coefficients are sampled (`kernels._whitening`): a poor one makes
sampling slower, never the answer wrong.
"""

from __future__ import annotations

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import DesignRows, PseudoRows, TaskData, TaskStatistics, sum_by_task
from bayes_mtl.families import Family
from bayes_mtl.model.priors import default_priors
from bayes_mtl.spec import ModelSpec

_ROUNDS = 12


def pilot(spec: ModelSpec, data: TaskData) -> PseudoRows:
    """Approximate each task's likelihood by a quadratic at penalised estimates of its coefficients.

    Alternates between one Newton step for the coefficients of every task, beta_t ~ N(m, diag(v)), and
    the moments m and v of these estimates (EM for the Gaussian approximation; shared columns have v = 0).

    Returns
    -------
    PseudoRows
        With R'R = H_t, the curvature, and R'y = H_t beta_t + score_t.
    """
    X, n_columns, n_varying = data.full_matrix, data.full_matrix.shape[1], data.n_features
    _, scales = default_priors(spec, data)
    unit = np.concatenate([scales["beta_mean"], scales["beta_shared"]])
    mean, variance = np.zeros(n_columns), unit**2
    beta = np.zeros((data.n_tasks, n_columns))
    for _ in range(_ROUNDS):
        curvature, moment, _ = _quadratic(spec.family, data, X, beta)
        precision = curvature + np.diag(1.0 / variance)
        covariance = np.linalg.inv(precision)
        beta = np.einsum("tij,tj->ti", covariance, moment + mean / variance)
        mean = beta.mean(axis=0)
        spread = ((beta - mean) ** 2 + np.einsum("tii->ti", covariance)).mean(axis=0)
        variance = np.clip(spread, 1e-4 * unit**2, unit**2)
        variance[n_varying:] = 1e-4 * unit[n_varying:] ** 2
    curvature, moment, weight = _quadratic(spec.family, data, X, beta)
    statistics = TaskStatistics(
        gram=curvature,
        moment=moment,
        square=np.zeros(data.n_tasks),
        count=np.zeros(data.n_tasks),
        reference=np.zeros(n_columns),
        log_weight=0.0,
    )
    return PseudoRows.compress(statistics, DesignRows(X, weight, data.starts))


def _quadratic(
    family: Family, data: TaskData, X: FloatArray, beta: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return H_t, H_t beta_t + score_t, and the weights of rows in H_t, at the given coefficients."""
    own = beta[data.task_index]
    eta = np.clip(np.einsum("np,np->n", X, own), -30.0, 30.0) + data.offset
    weight, score = family.information(data, eta)
    moment = sum_by_task(X * (weight * (eta - data.offset) + score)[:, None], data.starts)
    weighted = X * weight[:, None]
    curvature = np.empty((data.n_tasks, X.shape[1], X.shape[1]))
    for t in range(data.n_tasks):
        rows = slice(data.starts[t], data.starts[t + 1])
        curvature[t] = weighted[rows].T @ X[rows]
    return curvature, moment, weight
