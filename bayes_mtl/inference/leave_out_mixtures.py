"""Densities of what is left out where tasks are in one of several components.

Given theta, tasks are independent, and under component k the rows of a task are Gaussian, with evidence e_tk
and a predictive density p_k of each row given the others of its task. With prior weights w_tk,

    p(y_t | theta) = sum_k w_tk e_tk,      p(y_t without row i | theta) = sum_k w_tk e_tk / p_k(y_i | y_t,-i)

and the density of a row given all others is the ratio of the two: nothing but theta is left to reweight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.inference.deviations import cluster_weights
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES, MixtureDraws
from bayes_mtl.inference.rows_left_out import log_density, of_tasks
from bayes_mtl.inference.stored_draws import mean_of, noise_of, read
from bayes_mtl.model.mixture import CLUSTER_COV
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import TaskMixture

_LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class StoredMixture:
    """The law of the coefficients of a fit of Gaussian outcomes, read back from its DataTree.

    Attributes
    ----------
    hyper : MixtureDraws
        Draws, chains one after the other.
    data : TaskData
    """

    hyper: MixtureDraws
    data: TaskData

    @classmethod
    def read(cls, spec: ModelSpec, posterior: xr.Dataset, data: TaskData) -> StoredMixture | None:
        """Read draws (dim ``draw``); None if what is stored does not say how components vary."""
        structure = spec.task_covariance
        assert isinstance(structure, TaskMixture)
        n, F = posterior.sizes["draw"], data.full_matrix.shape[1]
        if not structure.has_centres:
            names = list(structure.component_names(data.tasks))
            member = structure.membership(data.tasks, data.tasks)
            assert member is not None
            weight = np.where(member > 0.0, 0.0, -np.inf)
            centre = np.zeros((n, len(names), data.n_features))
            log_weight = np.broadcast_to(weight, (n, *weight.shape))
        else:
            draws = posterior.expand_dims("chain")
            with np.errstate(divide="ignore"):
                log_weight = np.log(cluster_weights(structure, draws, list(data.tasks))[0])
            centre = read(posterior, "cluster_mean", "cluster", "feature")
            centre = centre - read(posterior, "beta_mean", "feature")[:, None]
        if CLUSTER_COV in posterior:
            cholesky = np.linalg.cholesky(read(posterior, CLUSTER_COV, "cluster", "feature", "feature_bis"))
        elif structure.has_directions:
            return None
        else:
            sd = read(posterior, "feature_sd", "feature")
            correlation = np.broadcast_to(np.eye(sd.shape[1]), (n, sd.shape[1], sd.shape[1]))
            if "feature_corr" in posterior:
                correlation = np.linalg.cholesky(read(posterior, "feature_corr", "feature", "feature_bis"))
            cholesky = (sd[:, :, None] * correlation)[:, None]
        hyper = MixtureDraws(
            sigma=noise_of(posterior),
            mean=mean_of(posterior, data, np.zeros((1, F)), ()),
            effect_scale=np.ones((n, 0)),
            levels=np.zeros((n, 0)),
            log_weight=log_weight,
            centre=centre,
            cholesky=cholesky,
        )
        return cls(hyper, data)

    def chunks(self) -> Iterator[tuple[slice, LeftOutOfMixture]]:
        """Go through the draws in pieces of bounded memory."""
        K, F = self.hyper.centre.shape[1], self.hyper.mean.shape[2]
        per_draw = 8 * self.data.n_tasks * F * (6 * F + 4) * (K + 2)
        for at, piece in self.hyper.chunks(max(1, CHUNK_BYTES // per_draw)):
            yield at, LeftOutOfMixture(piece, self.data)


@dataclass(frozen=True)
class LeftOutOfMixture:
    """What the law of the coefficients says of rows and tasks that are left out (draw, task, ...)."""

    hyper: MixtureDraws
    data: TaskData

    @cached_property
    def _components(self) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
        """Evidence (D, T), and mean (D, T, F) and covariance (D, T, F, F) of the coefficients, of each."""
        return [self._component(k) for k in range(self.hyper.centre.shape[1])]

    def _component(self, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        hyper, rows, data = self.hyper, self.data.pseudo_rows, self.data
        L = hyper.cholesky[:, k if hyper.cholesky.shape[1] > 1 else 0]
        P = L.shape[-1]
        mean = np.broadcast_to(hyper.mean, (len(hyper), data.n_tasks, hyper.mean.shape[2])).copy()
        mean[..., :P] += hyper.centre[:, None, k]
        sigma = np.broadcast_to(hyper.sigma, (len(hyper), data.n_tasks))
        R = np.moveaxis(rows.root, -1, 0) / sigma[..., None, None]
        y = rows.target.T / sigma[..., None] - (R @ (mean - rows.reference)[..., None])[..., 0]
        M = R[..., :P] @ L[:, None]
        E = np.swapaxes(M, -1, -2) @ M + np.eye(P)
        informed = (np.swapaxes(M, -1, -2) @ y[..., None])[..., 0]
        shift = np.linalg.solve(E, informed[..., None])[..., 0]
        # |y|^2 - y'M E^-1 M'y, as a sum of squares.
        left = y - (M @ shift[..., None])[..., 0]
        square = (left**2).sum(axis=-1) + (shift**2).sum(axis=-1) + rows.rest / sigma**2
        count = data.statistics.count
        weight = np.bincount(data.task_index, np.log(data.precision), minlength=data.n_tasks)
        evidence = 0.5 * (weight - count * _LOG_2PI - square - np.linalg.slogdet(E)[1])
        evidence -= count * np.log(sigma)
        mean[..., :P] += (L[:, None] @ shift[..., None])[..., 0]
        covariance = L[:, None] @ np.linalg.solve(E, np.swapaxes(L, -1, -2)[:, None])
        return evidence, mean, covariance

    @cached_property
    def _joint(self) -> FloatArray:
        """Log w_tk e_tk, (D, T, K)."""
        evidence = np.stack([e for e, _, _ in self._components], axis=-1)
        return self.hyper.log_weight + evidence

    def task_log_density(self, data: TaskData) -> FloatArray:
        """Return log p(y_t | theta), (D, T): given theta, other tasks say no more."""
        return np.asarray(logsumexp(self._joint, axis=-1))

    def task_surprise(self) -> FloatArray:
        """Return NaN, (D, T): there is no one centre that a task could lie far from."""
        return np.full(self._joint.shape[:2], np.nan)

    def row_log_density(self, data: TaskData, rows: slice = slice(None)) -> FloatArray:
        """Return log p(y_i | all other rows, theta) of some rows, (D, n)."""
        X, y, joint = data.full_matrix[rows], data.y[rows] - data.offset[rows], self._joint
        precision, sigma = data.precision[rows], self.hyper.sigma
        P = self.hyper.cholesky.shape[-1]
        out = np.empty((len(joint), len(X)))
        for t, at in of_tasks(data, rows):
            noise, without = sigma[:, min(t, sigma.shape[1] - 1)], []
            for k, (_, beta, covariance) in enumerate(self._components):
                left = y[at] - beta[:, t, P:] @ X[at, P:].T
                density = log_density(beta[:, t, :P], covariance[:, t], noise, X[at, :P], left, precision[at])
                without.append(joint[:, t, k, None] - density)
            out[:, at] = logsumexp(joint[:, t], axis=-1)[:, None] - logsumexp(without, axis=0)
        return out
