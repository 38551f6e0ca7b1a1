"""The rows of each Gaussian task, compressed to as many as there are columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data.statistics import TaskStatistics

_SURE = 1e-9  # an eigenvalue of a matrix with unit diagonal that no rounding makes
_LITTLE = 1e-5  # of the squares is left: a difference of sums that has lost five digits


@dataclass(frozen=True)
class DesignRows:
    """The rows themselves, sorted by task; task t owns rows starts[t] to starts[t + 1].

    Attributes
    ----------
    X, precision, starts : (N, F), (N,), (T + 1,)
    residual : (N,) or None
        r; None where all that is known of it is in the cross-products.
    """

    X: FloatArray
    precision: FloatArray
    starts: IntArray
    residual: FloatArray | None = None

    def of(self, t: int) -> tuple[FloatArray, FloatArray | None]:
        """Return W^1/2 X and W^1/2 r of task t."""
        at = slice(self.starts[t], self.starts[t + 1])
        root = np.sqrt(self.precision[at])
        return root[:, None] * self.X[at], None if self.residual is None else root * self.residual[at]


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
    rank : (T,)
        Number of directions that the rows of each task reach.
    """

    root: FloatArray
    target: FloatArray
    rest: FloatArray
    solve: FloatArray
    reference: FloatArray
    rank: IntArray

    @property
    def used(self) -> int:
        """Number of rows that are not zero in every task: fewer than columns if all tasks have few rows."""
        filled = np.flatnonzero(np.any(self.root != 0.0, axis=(1, 2)))
        return int(filled[-1]) + 1 if len(filled) else 0

    @classmethod
    def compress(cls, statistics: TaskStatistics, rows: DesignRows | None = None) -> PseudoRows:
        """Factor the cross-products of each task; they may be singular.

        Squares have half the digits: whether a task reaches a direction that it hardly reaches, and what is
        left where nearly everything is explained, only its rows can tell, which are asked if they are given.
        """
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
        rank = reached.sum(axis=1)
        doubtful = rest < _LITTLE * statistics.square
        if n_columns:
            doubtful |= eigenvalues[:, 0] < _SURE * eigenvalues[:, -1]
        for t in np.flatnonzero(doubtful) if rows is not None else ():
            assert rows is not None
            root[t], solve[t], rank[t], found = _factor(*rows.of(int(t)), scale[t])
            target[t] = solve[t] @ statistics.moment[t] if found is None else found[:-1]
            rest[t] = rest[t] if found is None else found[-1]
        return cls(
            root=np.ascontiguousarray(np.moveaxis(root, 0, -1)),
            target=np.ascontiguousarray(target.T),
            rest=rest,
            solve=np.ascontiguousarray(np.moveaxis(solve, 0, -1)),
            reference=statistics.reference,
            rank=rank,
        )


def _factor(
    rows: FloatArray, residual: FloatArray | None, scale: FloatArray
) -> tuple[FloatArray, FloatArray, int, FloatArray | None]:
    """Factor the rows A of one task: R, R'^-1, the rank, and R'^-1 A'r with what is left of r'r."""
    n_columns = rows.shape[1]
    U, length, Vt = np.linalg.svd(rows / scale, full_matrices=False)
    rank = int((length > max(rows.shape) * np.finfo(float).eps * length.max(initial=0.0)).sum())
    U, length, Vt = U[:, :rank], length[:rank], Vt[:rank]
    rotation, R = np.linalg.qr(length[:, None] * Vt * scale)
    root, solve = np.zeros((2, n_columns, n_columns))
    root[:rank], solve[:rank] = R, rotation.T @ (Vt / length[:, None]) / scale
    if residual is None:
        return root, solve, rank, None
    seen = np.zeros(n_columns + 1)
    explained = U.T @ residual
    left = residual - U @ explained
    left -= U @ (U.T @ left)  # once more, for what rounding left
    seen[:rank], seen[-1] = rotation.T @ explained, left @ left
    return root, solve, rank, seen
