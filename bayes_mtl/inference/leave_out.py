"""Densities of what is left out, in closed form given the hyperparameters.

Given theta, the coefficients are Gaussian, and so is any part of Gaussian outcomes given the rest. What a
part says of the coefficients is taken out of their posterior again, so nothing has to be fitted anew. In
the notation of `inference.conditional`, with S_t = A_t Q^-1 A_t' and r_t = v_t - A_t m,

    v_t | the other tasks  ~  N(v_t - (I - S_t)^-1 r_t, (I - S_t)^-1),

and a row is predicted by the others as `rows_left_out` says.

Effects gamma of the levels of groupings are taken as known, draw by draw, as hyperparameters are.

References: Marshall & Spiegelhalter (2007), Bayesian Analysis 2; Vehtari et al. (2016), JMLR 17.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr
from scipy.stats import chi2

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data import LevelRows, PseudoRows, TaskData
from bayes_mtl.inference.attributes import data_of, inside_of, spec_of
from bayes_mtl.inference.conditional import Conditional
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES, Hyperdraws, thinned
from bayes_mtl.inference.leave_out_mixtures import StoredMixture
from bayes_mtl.inference.pilot import pilot
from bayes_mtl.inference.rows_left_out import log_density, of_tasks
from bayes_mtl.inference.stored_draws import levels_of, mean_of, noise_of, read
from bayes_mtl.model import Population, integrated_population
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling, TaskMixture


def is_closed(spec: ModelSpec) -> bool:
    """Whether the coefficients of every task are Gaussian given what is read here."""
    return not isinstance(spec.task_covariance, TaskMixture)


def law_of_rows(
    idata: xr.DataTree, draws: int, data: TaskData | None = None
) -> Stored | StoredMixture | None:
    """Read what says how rows of Gaussian outcomes are predicted; None if that is not stored.

    `data` replaces the rows of the fit, not its priors.
    """
    spec = spec_of(idata)
    if is_closed(spec):
        return Stored.read(idata, data=data, draws=draws)
    posterior = thinned(idata["posterior"].to_dataset(), draws)
    return StoredMixture.read(spec, posterior, data_of(idata) if data is None else data)


_LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True)
class Stored:
    """The law of the coefficients of a fit, read back from its DataTree.

    Attributes
    ----------
    hyper : Hyperdraws
        Draws, chains one after the other.
    population : Population
        Which effects are integrated out.
    inside : ndarray of int
        Positions of the features inside the task covariance.
    data : TaskData
    rows : PseudoRows
        Exact for Gaussian outcomes, else an approximation of what the rows say of each task.
    levels : LevelRows or None
        What the rows of each task say of effects of levels, if there are any and outcomes are Gaussian; for
        others, `data` and `rows` have them in the offset, at their mean.
    """

    hyper: Hyperdraws
    population: Population
    inside: IntArray
    data: TaskData
    rows: PseudoRows
    levels: LevelRows | None = None

    @classmethod
    def read(cls, idata: xr.DataTree, *, data: TaskData | None = None, draws: int = 1000) -> Stored:
        """Read at most `draws` draws, evenly spaced; `data` replaces the rows of the fit, not its priors."""
        spec, own = spec_of(idata), data_of(idata)
        data = own if data is None else data
        effects = integrated_population(spec, own)
        posterior = thinned(idata["posterior"].to_dataset(), draws)
        inside = np.flatnonzero(np.isin(data.features, inside_of(idata)))
        hyper = _hyperdraws(posterior, effects, inside, data)
        if spec.family.gaussian_coefficients:
            levels = data.level_rows(by_task=True) if data.groupings else None
            return cls(hyper, effects, inside, data, data.pseudo_rows, levels)
        moved = data.levels.times(hyper.levels.mean(axis=0))
        data = replace(data, offset=data.offset + moved, groupings=())
        return cls(hyper, effects, inside, data, pilot(spec, data))

    @classmethod
    def at(cls, spec: ModelSpec, data: TaskData, sigma: FloatArray) -> Stored:
        """Describe a model of Gaussian outcomes with nothing to learn but the noise, at these values."""
        effects = integrated_population(spec, data)
        features, n = list(data.features), len(sigma)
        varies = not isinstance(spec.task_covariance, CompletePooling)
        entry = spec.priors.get("feature_sd", {})
        assert isinstance(entry, Mapping)
        width = np.array([float(entry[f]) if varies else 1.0 for f in features])  # type: ignore[arg-type]
        inside = np.arange(len(features))
        hyper = Hyperdraws(
            sd=np.tile(width, (n, 1)),
            correlation=np.tile(np.eye(len(features)), (n, 1, 1)),
            loadings=np.zeros((n, data.n_tasks, 0)),
            unique_sd=np.full((n, data.n_tasks), float(varies)),
            sigma=sigma[:, None],
            mean=np.tile(effects.fixed, (n, 1, 1)),
            effect_scale=np.ones((n, len(effects.column))),
            levels=np.zeros((n, 0)),
        )
        return cls(hyper, effects, inside, data, data.pseudo_rows)

    def chunks(self) -> Iterator[tuple[slice, LeftOut]]:
        """Go through the draws in pieces of bounded memory."""
        n_tasks, n_columns = self.data.n_tasks, self.hyper.mean.shape[2]
        size = len(self.population.column) + self.hyper.loadings.shape[2] * len(self.inside)
        per_draw = 8 * (n_tasks * n_columns * (6 * n_columns + 4 * size + 4) + 4 * size**2)
        everything = np.arange(self.data.n_features)
        for at, piece in self.hyper.chunks(max(1, CHUNK_BYTES // per_draw)):
            shift: FloatArray | float = 0.0
            if self.levels is not None:
                shift = np.einsum("tfc,dc->dtf", self.levels.slope, piece.levels, optimize=True)
            yield (
                at,
                LeftOut(piece, self.population, self.inside, everything, self.rows, shift, self.levels),
            )


@dataclass(frozen=True)
class LeftOut(Conditional):
    """What the law of the coefficients says of rows and tasks that are left out."""

    rows: PseudoRows
    shift: FloatArray | float = 0.0
    levels: LevelRows | None = None

    @cached_property
    def _rest(self) -> FloatArray:
        """Squares of what no coefficient of a task explains, (T,) or (D, T)."""
        if self.levels is None:
            return self.rows.rest
        root, target = np.moveaxis(self.levels.root, -1, 0), self.levels.target.T
        left = target[:, None, :] - self.hyper.levels @ np.swapaxes(root, -1, -2)
        return self.levels.rest + (left**2).sum(axis=-1).T

    @cached_property
    def _common(self) -> tuple[FloatArray, FloatArray]:
        """Mean (D, A) and covariance (D, A, A) of the common variables."""
        Q, h = self.common
        covariance = np.linalg.inv(Q)
        return (covariance @ h[..., None])[..., 0], covariance

    @cached_property
    def _left_out(self) -> tuple[FloatArray, FloatArray]:
        """|(I - S)^(-1/2) r|^2 and log|I - S|, both (D, T)."""
        A, v, _ = self.whitened
        mean, covariance = self._common
        S = A @ (covariance[:, None] @ np.swapaxes(A, -1, -2))
        r = v - np.einsum("dtfa,da->dtf", A, mean)
        root = np.linalg.cholesky(np.eye(S.shape[-1]) - (S + np.swapaxes(S, -1, -2)) / 2)
        white = np.linalg.solve(root, r[..., None])[..., 0]
        return (white**2).sum(axis=-1), 2.0 * np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(axis=-1)

    def log_marginal(self, data: TaskData) -> FloatArray:
        """Return log p(y | theta), (D,), up to a constant."""
        (_, v, log_det), (Q, h) = self.whitened, self.common
        square = (v**2).sum(axis=(1, 2)) + (self._rest / self.hyper.sigma**2).sum(axis=1)
        square -= (h * self._common[0]).sum(axis=1)
        scale = (np.log(self.hyper.sigma) * data.statistics.count).sum(axis=1)
        return -0.5 * (square + log_det.sum(axis=1) + np.linalg.slogdet(Q)[1]) - scale

    def task_log_density(self, data: TaskData) -> FloatArray:
        """Return log p(y_t | outcomes of the other tasks, theta), (D, T)."""
        square, log_det = self._left_out
        count = data.statistics.count
        scale = np.log(self.hyper.sigma) * count
        weight = np.bincount(data.task_index, np.log(data.precision), minlength=data.n_tasks)
        rest = self._rest / self.hyper.sigma**2
        return 0.5 * (log_det - square - self.whitened[2] - rest + weight - count * _LOG_2PI) - scale

    def task_surprise(self) -> FloatArray:
        """Return P(a task drawn from the population of the others lies further out than task t), (D, T).

        Uniform if task t is one of them.
        """
        return chi2.sf(self._left_out[0], np.maximum(self.rows.rank, 1))

    @property
    def rest(self) -> FloatArray:
        """What is left of the rows around each task's own least squares, (D, T)."""
        return np.broadcast_to(self._rest, (len(self.hyper), len(self.rows.rest)))

    def task_error(self, t: int) -> tuple[FloatArray, FloatArray]:
        """Return how far the pseudo-rows of task t are from what the others say of them.

        Their error is N(0, K + sigma_t^2 I), whatever the noise of t is.

        Returns
        -------
        eigenvalues, squares : (D, F)
            Of K; and of the error, turned to its eigenvectors.
        """
        A, v, _ = self.whitened
        covariance = self.covariance_without(t)
        pull = np.einsum("dfa,df->da", A[:, t], v[:, t] - np.einsum("dfa,da->df", A[:, t], self._common[0]))
        mean = self._common[0] - np.einsum("dab,db->da", covariance, pull)
        y = self.scaled_rows[1]
        sigma = self.hyper.sigma[:, min(t, self.hyper.sigma.shape[1] - 1), None]
        Z = np.moveaxis(self.rows.root, -1, 0)[t] @ self.design[:, t]
        M = self.own_rows[:, t] * sigma[..., None]
        error = sigma * y[:, t] - np.einsum("dfa,da->df", Z, mean)
        K = Z @ covariance @ np.swapaxes(Z, -1, -2) + M @ np.swapaxes(M, -1, -2)
        length, U = np.linalg.eigh((K + np.swapaxes(K, -1, -2)) / 2)
        return np.maximum(length, 0.0), (np.swapaxes(U, -1, -2) @ error[..., None])[..., 0] ** 2

    @cached_property
    def information(self) -> FloatArray:
        """J = X'WX / sigma^2, (D, T, F, F)."""
        R, _ = self.scaled_rows
        return np.swapaxes(R, -1, -2) @ R

    @cached_property
    def reach(self) -> tuple[FloatArray, FloatArray]:
        """B (D, T, F, A), what the common variables do to the coefficients given the task's own rows.

        And the covariance (D, T, F, F) that is left given the common variables.
        """
        (R, _), n_varying = self.scaled_rows, self.hyper.sd.shape[1]
        Mt = np.swapaxes(self.own_rows, -1, -2)
        E = np.linalg.inv(self.own_information)
        B = self.design.copy()
        B[..., :n_varying, :] -= self.own @ (E @ (Mt @ (R @ self.design)))
        left = np.zeros((*B.shape[:3], B.shape[2]))
        left[..., :n_varying, :n_varying] = self.own @ E @ np.swapaxes(self.own, -1, -2)
        return B, left

    @cached_property
    def coefficients(self) -> tuple[FloatArray, FloatArray]:
        """Mean (D, T, F) and covariance (D, T, F, F) of the coefficients of each task."""
        R, y = self.scaled_rows
        (B, left), (mean, covariance) = self.reach, self._common
        beta = self.hyper.mean + np.einsum("dtfa,da->dtf", B, mean)
        # Given alpha, beta_t is pulled to its rows by left R'y.
        beta = beta + np.einsum("dtfg,dthg,dth->dtf", left, R, y, optimize=True)
        return beta, B @ covariance[:, None] @ np.swapaxes(B, -1, -2) + left

    def covariance_without(self, s: int) -> FloatArray:
        """Return the covariance of the common variables if the rows of task s are left out, (D, A, A)."""
        A, covariance = self.whitened[0][:, s], self._common[1]
        AC = A @ covariance
        spare = np.eye(A.shape[1]) - AC @ np.swapaxes(A, -1, -2)
        return covariance + np.swapaxes(AC, -1, -2) @ np.linalg.solve(spare, AC)

    def covariance_given_others(self) -> FloatArray:
        """Covariance of the coefficients of each task given the rows of all other tasks, (D, T, F, F)."""
        n_varying = self.hyper.sd.shape[1]
        out = np.stack(
            [
                Z @ self.covariance_without(t) @ np.swapaxes(Z, -1, -2)
                for t, Z in enumerate(np.moveaxis(self.design, 1, 0))
            ],
            axis=1,
        )
        out[..., :n_varying, :n_varying] += self.own @ np.swapaxes(self.own, -1, -2)
        return out

    def row_log_density(self, data: TaskData, rows: slice = slice(None)) -> FloatArray:
        """Return log p(y_i | all other rows, theta) of some rows, (D, n)."""
        beta, covariance = self.coefficients
        y = data.y[rows] - data.offset[rows]
        if self.levels is not None:
            y = y - data.levels.times(self.hyper.levels)[:, rows]
        X, precision, sigma = data.full_matrix[rows], data.precision[rows], self.hyper.sigma
        out = np.empty((len(beta), len(X)))
        for t, at in of_tasks(data, rows):
            noise = sigma[:, min(t, sigma.shape[1] - 1)]
            out[:, at] = log_density(beta[:, t], covariance[:, t], noise, X[at], y[..., at], precision[at])
        return out


def _hyperdraws(posterior: xr.Dataset, effects: Population, inside: IntArray, data: TaskData) -> Hyperdraws:
    """Read the law of the coefficients from reported variables (dim ``draw``)."""
    n, n_tasks, n_features = posterior.sizes["draw"], data.n_tasks, data.n_features
    sd = read(posterior, "feature_sd", "feature") if "feature_sd" in posterior else np.ones((n, n_features))
    correlation = np.broadcast_to(np.eye(len(inside)), (n, len(inside), len(inside)))
    if "feature_corr" in posterior:
        whole = read(posterior, "feature_corr", "feature", "feature_bis")
        correlation = np.linalg.cholesky(whole[:, inside[:, None], inside])
    loadings = np.zeros((n, n_tasks, 0))
    unique_sd = np.full((n, n_tasks), 1.0 if "feature_sd" in posterior else 0.0)
    if "task_unique_sd" in posterior:
        loadings, unique_sd = (
            read(posterior, "task_loadings", "task", "factor"),
            read(posterior, "task_unique_sd", "task"),
        )
    elif "task_corr" in posterior:
        corr = read(posterior, "task_corr", "task", "task_bis")
        loadings = np.linalg.cholesky(corr + 1e-12 * np.eye(n_tasks))
        unique_sd = np.zeros((n, n_tasks))
    scale = np.ones((n, n_tasks))
    if "task_sd" in posterior:
        scale = scale * read(posterior, "task_sd", "task")
    if "task_reliability" in posterior:
        scale = scale / np.sqrt(read(posterior, "task_reliability", "task"))
    return Hyperdraws(
        sd=sd,
        correlation=correlation,
        loadings=scale[..., None] * loadings,
        unique_sd=scale * unique_sd,
        sigma=noise_of(posterior),
        mean=mean_of(posterior, data, effects.fixed, effects.integrated),
        effect_scale=_effect_scale(posterior, effects, data, n),
        levels=levels_of(posterior, data),
    )


def _effect_scale(posterior: xr.Dataset, effects: Population, data: TaskData, n: int) -> FloatArray:
    """Return what of the sizes of effects that are integrated out was learned, (n, C)."""
    out = np.ones((n, len(effects.column)))
    if "beta_mean_sd" in posterior:
        at = np.isin(data.features, posterior["candidate_feature"].to_numpy())
        position = effects.integrated["beta_mean"].position[at]
        out[:, position] = posterior["beta_mean_sd"].transpose("draw", "candidate_feature").to_numpy()
    return out
