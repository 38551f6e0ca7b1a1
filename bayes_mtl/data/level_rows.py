"""What rows say of effects that all tasks share, beside what they say of each task's coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data.groupings import LevelColumns
from bayes_mtl.data.pseudo_rows import PseudoRows
from bayes_mtl.data.statistics import TaskStatistics

_NOTHING = 1e-10  # of a column's squares: less is left of a column that a task's own columns make up


@dataclass(frozen=True)
class LevelRows:
    """Rows of a model with effects gamma of levels beside the coefficients of tasks, compressed.

    The likelihood depends on them through, for every task t and pseudo-rows R_t, y_t of its own columns,

        |y_t - R_t (beta_t + A_t gamma)|^2   and   sum_t |y'_t - R'_t gamma|^2 + rest_t.

    The first is that of beta_t alone, shifted: what a task's own columns cannot tell from its coefficients.
    The second is what is left of the levels' columns within tasks, and does not depend on coefficients.

    Attributes
    ----------
    slope : (T, F, C)
        A_t.
    root, target, rest : (C, C, G), (C, G), (G,)
        R', y' and rest; of each task (G = T), or summed over them (G = 1).
    """

    slope: FloatArray
    root: FloatArray
    target: FloatArray
    rest: FloatArray

    @classmethod
    def compress(
        cls,
        levels: LevelColumns,
        X: FloatArray,
        weights: FloatArray,
        response: FloatArray,
        task_index: IntArray,
        rows: PseudoRows,
        *,
        by_task: bool = False,
    ) -> LevelRows:
        """Summarise rows.

        Parameters
        ----------
        levels : LevelColumns
            Z.
        X : (n_rows, F)
            Columns of the tasks.
        weights, response : (n_rows,)
            W, and W r with r the outcome less what `rows` are relative to.
        task_index : (n_rows,)
        rows : PseudoRows
            Of X, with these weights and this response.
        by_task : bool
            Whether tasks may differ in their noise, so that sums over tasks are not enough.
        """
        n_tasks, C = rows.root.shape[2], levels.size
        cross = np.stack([levels.sums(weights * x, task_index, n_tasks) for x in X.T], axis=1)  # X'WZ
        solve = np.moveaxis(rows.solve, -1, 0)
        B = solve @ cross
        group, n_groups = (task_index, n_tasks) if by_task else (np.zeros_like(task_index), 1)
        parts = B.reshape(n_groups, -1, C)
        whole = levels.gram(weights, group, n_groups)
        gram = whole - np.swapaxes(parts, 1, 2) @ parts
        target = rows.target.T.reshape(n_groups, -1, 1)
        moment = levels.sums(response, group, n_groups) - (np.swapaxes(parts, 1, 2) @ target)[..., 0]
        left = np.einsum("gcc->gc", gram) > _NOTHING * np.einsum("gcc->gc", whole)
        inside = compress(
            np.where(left[:, :, None] & left[:, None, :], gram, 0.0),
            np.where(left, moment, 0.0),
            rows.rest.reshape(n_groups, -1).sum(axis=1),
        )
        slope = np.ascontiguousarray(np.swapaxes(solve, 1, 2) @ B)
        return cls(slope, inside.root, inside.target, inside.rest)


def compress(gram: FloatArray, moment: FloatArray, square: FloatArray | None = None) -> PseudoRows:
    """Return pseudo-rows with these cross-products (G, C, C), (G, C) and squares (G,)."""
    n = len(gram)
    return PseudoRows.compress(
        TaskStatistics(
            gram=gram,
            moment=moment,
            square=np.zeros(n) if square is None else square,
            count=np.zeros(n),
            reference=np.zeros(gram.shape[1]),
            log_weight=0.0,
        )
    )
