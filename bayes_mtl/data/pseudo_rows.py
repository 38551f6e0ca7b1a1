"""The rows of each Gaussian task, compressed to as many as there are columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data.statistics import TaskStatistics


@dataclass(frozen=True)
class PseudoRows:
    """Rows with the same likelihood as all rows of a task: X'WX = R'R, X'W r = R'y, r'W r = y'y + rest.

    A likelihood computed from R and y loses no digits to differences of large cross-products.
    The task is the last axis.

    Attributes
    ----------
    root : (F, F, T)
        R, upper triangular.
    target : (F, T)
        y.
    rest : (T,)
        The part of the squares that no coefficient explains.
    solve : (F, F, T)
        The map from X'W r to y: R'^-1, zero in directions that the rows do not reach.
    reference : (F,)
        r is the residual from these coefficients.
    """

    root: FloatArray
    target: FloatArray
    rest: FloatArray
    solve: FloatArray
    reference: FloatArray

    @property
    def rank(self) -> IntArray:
        """Number of directions (T,) that the rows of each task reach."""
        return (np.abs(self.solve).sum(axis=1) > 0.0).sum(axis=0)

    @classmethod
    def compress(cls, statistics: TaskStatistics) -> PseudoRows:
        """Factor the cross-products of each task; they may be singular."""
        gram = statistics.gram
        n_columns = gram.shape[1]
        # Columns may be measured in very different units.
        scale = np.sqrt(np.einsum("tpp->tp", gram))
        scale[scale == 0.0] = 1.0
        eigenvalues, vectors = np.linalg.eigh(gram / (scale[:, :, None] * scale[:, None, :]))
        reached = eigenvalues > n_columns * np.finfo(float).eps * eigenvalues[:, -1:]
        length = np.sqrt(np.where(reached, eigenvalues, 0.0))
        rotation, root = np.linalg.qr(length[:, :, None] * np.swapaxes(vectors, 1, 2) * scale[:, None, :])
        inverse = np.divide(1.0, length, out=np.zeros_like(length), where=reached)
        solve = np.swapaxes(rotation, 1, 2) @ (inverse[:, :, None] * np.swapaxes(vectors, 1, 2))
        solve = solve / scale[:, None, :]
        target = np.einsum("tfg,tg->tf", solve, statistics.moment)
        rest = np.maximum(statistics.square - (target**2).sum(axis=1), 0.0)
        return cls(
            root=np.ascontiguousarray(np.moveaxis(root, 0, -1)),
            target=np.ascontiguousarray(target.T),
            rest=rest,
            solve=np.ascontiguousarray(np.moveaxis(solve, 0, -1)),
            reference=statistics.reference,
        )
