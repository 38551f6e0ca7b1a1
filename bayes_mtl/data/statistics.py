"""Sufficient statistics of Gaussian tasks: all that the likelihood needs to know of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray

_FEW_ROWS = 50_000  # more are left to numba, which takes half a second to start
_FEW_TASKS = 5_000


@dataclass(frozen=True)
class TaskStatistics:
    """Cross-products per task, of the outcome's residual from one reference coefficient vector.

    With W the weights, X all columns (varying first, then shared) and r = y - offset - X b_ref:
    ``gram`` = X'WX, ``moment`` = X'Wr, ``square`` = r'Wr. Taking residuals first keeps the digits
    that y'Wy would lose when the mean of y is far from zero.

    Attributes
    ----------
    gram : (T, F, F)
    moment : (T, F)
    square : (T,)
    count : (T,)
        Number of rows.
    reference : (F,)
        b_ref, by pooled least squares (of a part of the rows if there are many: it need only be near).
    log_weight : float
        Half the sum of the log weights: the constant of the Gaussian density.
    """

    gram: FloatArray
    moment: FloatArray
    square: FloatArray
    count: FloatArray
    reference: FloatArray
    log_weight: float

    @classmethod
    def from_rows(
        cls, X: FloatArray, y: FloatArray, starts: IntArray, weights: FloatArray | None = None
    ) -> TaskStatistics:
        """Summarise rows that are sorted by task; task t owns rows starts[t] to starts[t + 1]."""
        reference = _reference(X, y, weights)
        if len(y) < _FEW_ROWS and len(starts) < _FEW_TASKS:
            sums = _by_task(X, y, weights, reference, starts)
        else:
            from bayes_mtl.data._cross_products import cross_products

            sums = cross_products(np.ascontiguousarray(X), y, weights, reference, starts)
        gram, moment, square, log_weights = sums
        return cls(
            gram=gram,
            moment=moment,
            square=square,
            count=np.diff(starts).astype(float),
            reference=reference,
            log_weight=0.5 * log_weights,
        )


def sum_by_task(values: FloatArray, starts: IntArray) -> FloatArray:
    """Return the sums of rows that are sorted by task, zero for a task without rows."""
    filled = np.flatnonzero(np.diff(starts))
    out = np.zeros((len(starts) - 1, *values.shape[1:]))
    out[filled] = np.add.reduceat(values, starts[filled], axis=0)
    return out


def _reference(X: FloatArray, y: FloatArray, weights: FloatArray | None) -> FloatArray:
    """Least squares over all tasks, of evenly spaced rows if there are many: it need only be near."""
    many = len(y) >= _FEW_ROWS
    some = slice(None, None, 1 + len(y) // (2_000 + 20 * X.shape[1]) if many else 1)
    root = np.ones(1) if weights is None else np.sqrt(weights[some])
    X, y = X[some] * root[:, None], y[some] * root
    if many:
        # Not by BLAS: for a while after, its threads would compete with ours.
        X, y = np.einsum("np,nq->pq", X, X), np.einsum("np,n->p", X, y)
    return np.linalg.lstsq(X, y, rcond=None)[0]


def _by_task(
    X: FloatArray, y: FloatArray, weights: FloatArray | None, reference: FloatArray, starts: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """What `cross_products` returns, where starting numba would take longer than the sums."""
    n_tasks, n_columns = len(starts) - 1, X.shape[1]
    columns = np.column_stack([X, y - X @ reference])
    if weights is not None:
        columns *= np.sqrt(weights)[:, None]
    cross = np.empty((n_tasks, n_columns + 1, n_columns + 1))
    for t in range(n_tasks):
        rows = columns[starts[t] : starts[t + 1]]
        cross[t] = rows.T @ rows
    gram, moment, square = cross[:, :-1, :-1].copy(), cross[:, -1, :-1].copy(), cross[:, -1, -1].copy()
    return gram, moment, square, 0.0 if weights is None else float(np.log(weights).sum())
