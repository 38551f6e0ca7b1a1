"""The posterior of all Gaussian coefficients given the hyperparameters, for many draws of them at once.

In the notation of `kernels._collapsed_gaussian`: the rows of task t whitened by its own deviation are
v_t ~ N(A_t alpha, I), so that

    alpha | y ~ N(m, Q^-1),      Q = I + sum_t A_t'A_t,      Q m = h = sum_t A_t'v_t

with A_t = (I + M_t M_t')^-1/2 R_t Z_t and M_t = R_t L S_t. Sums of squares lose no digits where there is
little noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data import PseudoRows
from bayes_mtl.inference.hyperdraws import Hyperdraws
from bayes_mtl.model import Population


@dataclass(frozen=True)
class Conditional:
    """The law of the coefficients given draws of the hyperparameters, and rows; arrays begin (draw, task).

    Attributes
    ----------
    hyper : Hyperdraws
    population : Population
        Which effects are integrated out.
    inside : (I,)
        Positions of the features inside the task covariance.
    own_features : (U,)
        Positions of the features in which tasks deviate on their own.
    rows : PseudoRows or None
        None: the prior.
    shift : (D, T, F) or 0
        What else moves what the rows say of the coefficients.
    """

    hyper: Hyperdraws
    population: Population
    inside: IntArray
    own_features: IntArray
    rows: PseudoRows | None
    shift: FloatArray | float = 0.0

    @cached_property
    def own(self) -> FloatArray:
        """L S (D, T, P, U): the factor of each task's own deviation."""
        is_inside = np.isin(self.own_features, self.inside)
        scale = np.where(is_inside, self.hyper.unique_sd[:, :, None], 1.0)
        return self._cholesky[:, None, :, self.own_features] * scale[:, :, None, :]

    @cached_property
    def _cholesky(self) -> FloatArray:
        hyper, inside = self.hyper, self.inside
        L = hyper.sd[:, :, None] * np.eye(hyper.sd.shape[1])
        L[:, inside[:, None], inside] = hyper.sd[:, inside, None] * hyper.correlation
        return L

    @cached_property
    def design(self) -> FloatArray:
        """Z (D, T, F, A): what the common variables do to the coefficients."""
        hyper, effects = self.hyper, self.population
        n_draws, n_tasks, n_factors = hyper.loadings.shape
        n_varying, n_common, n_inside = hyper.sd.shape[1], len(effects.column), len(self.inside)
        Z = np.zeros((n_draws, n_tasks, hyper.mean.shape[2], n_common + n_factors * n_inside))
        Z[:, :, effects.column, np.arange(n_common)] = hyper.effect_scale[:, None, :] * effects.design.T
        Z[:, :, :n_varying, n_common:] = np.einsum(
            "dtk,dpx->dtpkx", hyper.loadings, self._cholesky[:, :, self.inside], optimize=True
        ).reshape(n_draws, n_tasks, n_varying, n_factors * n_inside)
        return Z

    @cached_property
    def scaled_rows(self) -> tuple[FloatArray, FloatArray]:
        """R / sigma (D, T, R, F), and y / sigma (D, T, R) less what the known part of the mean explains.

        R is the number of columns, or of rows where all tasks have fewer.
        """
        assert self.rows is not None
        used = self.rows.used
        root, target = self.rows.root[:used], self.rows.target[:used]
        sigma = self.hyper.sigma
        seen = self.hyper.mean + self.shift - self.rows.reference
        seen = np.broadcast_to(seen, (len(seen), self.hyper.unique_sd.shape[1], seen.shape[2]))
        y = target.T - np.einsum("fgt,dtg->dtf", root, seen)
        return np.moveaxis(root, -1, 0) / sigma[:, :, None, None], y / sigma[..., None]

    @cached_property
    def own_rows(self) -> FloatArray:
        """M = R L S / sigma, (D, T, R, U)."""
        return self.scaled_rows[0][..., : self.hyper.sd.shape[1]] @ self.own

    @cached_property
    def own_information(self) -> FloatArray:
        """I + M'M (D, T, U, U): the precision of a task's own coordinates given the common variables."""
        M = self.own_rows
        return np.swapaxes(M, -1, -2) @ M + np.eye(M.shape[-1])

    @cached_property
    def whitened(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """A (D, T, R, A), v (D, T, R), and log|I + M M'| (D, T)."""
        R, y = self.scaled_rows
        M = self.own_rows
        outer = np.linalg.cholesky(M @ np.swapaxes(M, -1, -2) + np.eye(M.shape[-2]))
        both = np.linalg.solve(outer, np.concatenate([R @ self.design, y[..., None]], axis=-1))
        log_det = 2.0 * np.log(np.diagonal(outer, axis1=-2, axis2=-1)).sum(axis=-1)
        return both[..., :-1], both[..., -1], log_det

    @cached_property
    def common(self) -> tuple[FloatArray, FloatArray]:
        """Q (D, A, A) and h (D, A) of the common variables."""
        A, v, _ = self.whitened
        n_draws, n_tasks, n_columns, size = A.shape
        A = A.reshape(n_draws, n_tasks * n_columns, size)  # sums over tasks are sums over rows
        At = np.swapaxes(A, -1, -2)
        return At @ A + np.eye(size), (At @ v.reshape(n_draws, -1, 1))[..., 0]
