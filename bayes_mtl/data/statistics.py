"""Sufficient statistics of Gaussian tasks: all that the likelihood needs to know of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray


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
        b_ref, by pooled least squares.
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
    def from_rows(cls, X: FloatArray, y: FloatArray, starts: IntArray, weights: FloatArray) -> TaskStatistics:
        """Summarise rows that are sorted by task; task t owns rows starts[t] to starts[t + 1]."""
        n_tasks, n_columns = len(starts) - 1, X.shape[1]
        root = np.sqrt(weights)[:, None]
        reference = np.linalg.lstsq(X * root, y * root[:, 0], rcond=None)[0]
        residual = y - X @ reference
        gram = np.empty((n_tasks, n_columns, n_columns))
        moment = np.empty((n_tasks, n_columns))
        square = np.empty(n_tasks)
        for t in range(n_tasks):
            rows = slice(starts[t], starts[t + 1])
            weighted = X[rows] * weights[rows, None]
            gram[t] = weighted.T @ X[rows]
            moment[t] = weighted.T @ residual[rows]
            square[t] = weights[rows] @ residual[rows] ** 2
        return cls(
            gram=gram,
            moment=moment,
            square=square,
            count=np.diff(starts).astype(float),
            reference=reference,
            log_weight=float(0.5 * np.log(weights).sum()),
        )
