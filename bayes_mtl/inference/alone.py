"""Rows of a task predicted by its other rows alone, as if there were no other task.

Of one task, a hyperprior says only what its coefficients are like: beta ~ N(m_h, V_h), one normal law for
each draw h of the hyperparameters from their prior, whichever priors they have. With the task's pseudo-rows
R, y and K_h = R V_h R' = U diag(l) U', r = y - R m_h,

    log p(y | h, sigma) = -1/2 sum_k [log(1 + l_k / sigma^2) + (U'r)_k^2 / (l_k + sigma^2)]
                          - rest / (2 sigma^2) - n log sigma + const

so the noise scale, which is the task's own, is integrated over a grid that is found from its rows. With
c_i = R'^-1 x_i and a_k = sigma^2 / (l_k + sigma^2), row i, in units of its weight, is predicted by the others
given h and sigma with the residual e_i and the variance sigma^2 / (1 - h_i),

    e_i / (1 - h_i),   e_i = d_i + sum_k (U'c_i)_k (U'r)_k a_k,
                       1 - h_i = 1 - |c_i|^2 + sum_k (U'c_i)_k^2 a_k

where d_i is what no coefficient explains; and 1 / p(y_i | other rows) = E[1 / p(y_i | other rows, h, sigma)].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data import TaskData

_LOG_2PI = float(np.log(2 * np.pi))
_STEPS, _STEPS_OF_MANY, _MANY = 64, 24, 200  # of the grid of log sigma; of many rows, whose law is normal
_ROUNDS = 6
_LEAST = 1e-5  # of what no coefficient explains: the noise that is thought possible
_FAR = 25.0  # nats below the mode: nothing that counts
_CHUNK = 2**23  # entries, of rows and laws
_BLOCK = 2**18  # of these held at a time
_ODD = 20  # rows without which the noise scale may be quite another


@dataclass(frozen=True)
class LawOfOne:
    """Draws of what the hyperprior says of the coefficients of each task, if it were the only one.

    Attributes
    ----------
    mean : (H, T or 1, F)
    own : (H, P, P)
        Covariance of the P varying coefficients.
    scale : (H, T, P)
        By how much each task's coefficients deviate more than that.
    variance : (H, T or 1, F)
        Of what moves single coefficients: the uncertainty of population means, shared slopes, effects.
    follows_noise : callable or None
        From (sigma / sigma of the draw) to `own` and `variance`, where scales of features are relative to
        the noise.
    """

    mean: FloatArray
    own: FloatArray
    scale: FloatArray
    variance: FloatArray
    follows_noise: Callable[[FloatArray], tuple[FloatArray, FloatArray]] | None = None
    sigma: FloatArray | None = None

    def covariance(self, t: int, sigma: float | None = None) -> FloatArray:
        """Return V (H, F, F) of task t."""
        own, variance = self.own, self.variance
        if self.follows_noise is not None and sigma is not None:
            assert self.sigma is not None
            own, variance = self.follows_noise(sigma / self.sigma)
        P = own.shape[-1]
        scale = self.scale[:, t]
        V = of_task(variance, t)[:, :, None] * np.eye(variance.shape[-1])
        V[:, :P, :P] += scale[:, :, None] * own * scale[:, None, :]
        return V

    def log_density(self, t: int, beta: FloatArray) -> FloatArray:
        """Return the log density of coefficients (D, F) of task t under the mixture of all draws, (D,)."""
        V = self.covariance(t)
        # A coefficient that is known has no density: it counts as known to a ten-thousandth.
        size = np.einsum("hff->hf", V)
        V = V + np.maximum(1e-8 * size.mean(axis=0), 1e-16)[:, None] * np.eye(V.shape[-1])
        root = np.linalg.inv(np.linalg.cholesky(V))
        log_det = -np.log(np.einsum("hff->hf", root)).sum(axis=1)
        about = (root @ of_task(self.mean, t)[..., None])[..., 0]
        out = np.full(len(beta), -np.inf)
        for start in range(0, len(root), 32):
            at = slice(start, start + 32)
            white = np.einsum("hfg,dg->hdf", root[at], beta) - about[at, None]
            each = -0.5 * (white**2).sum(axis=-1) - log_det[at, None]
            out = np.logaddexp(out, logsumexp(each, axis=0))
        return out - np.log(len(root)) - 0.5 * beta.shape[1] * _LOG_2PI


def of_task(values: FloatArray, t: int) -> FloatArray:
    """Return what holds of task t, of an array with tasks, or one for all, on its second axis."""
    return values[:, t if values.shape[1] > 1 else 0]


@dataclass(frozen=True)
class AloneScores:
    """Log densities of rows (N,), and what batches of draws of the hyperprior add to the error of sums.

    Attributes
    ----------
    density : (N,)
    error : (batches, T)
    log_weight : (H, T)
        How likely each task is under each draw.
    """

    density: FloatArray
    error: FloatArray
    log_weight: FloatArray


def score_alone(
    data: TaskData, law: LawOfOne, log_prior: Callable[[FloatArray], FloatArray] | float, n_batches: int
) -> AloneScores:
    """Predict each row by the other rows of its task.

    Parameters
    ----------
    data : TaskData
    law : LawOfOne
    log_prior : callable or float
        Log density of the noise scale; a number is its value.
    n_batches : int
        Into how many batches the draws of the hyperprior are divided.
    """
    batch = np.arange(len(law.mean)) * n_batches // len(law.mean)
    density, error = np.empty(data.n_rows), np.zeros((n_batches, data.n_tasks))
    log_weight = np.zeros((len(law.mean), data.n_tasks))
    for t in range(data.n_tasks):
        task = _Task.of(data, t)
        if not task.n_rows:
            continue
        sigma = _grid(task, law, t, log_prior)
        joint = task.log_density(law, t, sigma)
        if not isinstance(log_prior, float):
            joint = joint + log_prior(sigma) + np.log(sigma)  # even steps of log sigma
        joint = joint - logsumexp(joint)
        log_weight[:, t] = logsumexp(joint, axis=1)
        h, log_cells = _cells(joint, int(np.clip(_CHUNK // (len(sigma) * task.n_rows), 4, len(joint))))
        rows = slice(data.starts[t], data.starts[t + 1])
        density[rows], pull = task.rows_left_out(law, t, h, sigma, log_cells)
        error[:, t] = np.bincount(batch[h], pull, minlength=n_batches)
    return AloneScores(density, error, log_weight)


@dataclass(frozen=True)
class _Task:
    """The rows of one task, and their pseudo-rows."""

    root: FloatArray
    target: FloatArray
    rest: float
    reference: FloatArray
    place: FloatArray  # c_i, (n, F)
    left: FloatArray  # d_i, (n,)
    outside: FloatArray  # 1 - |c_i|^2, (n,)
    log_precision: FloatArray

    @property
    def n_rows(self) -> int:
        return len(self.left)

    @classmethod
    def of(cls, data: TaskData, t: int) -> _Task:
        at, rows = slice(data.starts[t], data.starts[t + 1]), data.pseudo_rows
        X, precision = data.full_matrix[at], data.precision[at]
        root, target, solve = rows.root[..., t], rows.target[:, t], rows.solve[..., t]
        place = (np.sqrt(precision)[:, None] * X) @ solve.T
        residual = np.sqrt(precision) * (data.y[at] - data.offset[at] - X @ rows.reference)
        left = residual - place @ target
        outside = np.maximum(1.0 - (place**2).sum(axis=1), 0.0)
        if rows.rank[t] == len(X):  # the coefficients explain every row
            left, outside = np.zeros((2, len(X)))
        rest = float(rows.rest[t])
        return cls(root, target, rest, rows.reference, place, left, outside, np.log(precision))

    def rotated(
        self, law: LawOfOne, t: int, h: IntArray | slice, sigma: float | None = None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return l (H, F), U (H, F, F) and U'r (H, F)."""
        K = self.root @ law.covariance(t, sigma)[h] @ self.root.T
        length, U = np.linalg.eigh((K + np.swapaxes(K, -1, -2)) / 2)
        r = self.target - (of_task(law.mean, t)[h] - self.reference) @ self.root.T
        return np.maximum(length, 0.0), U, (np.swapaxes(U, -1, -2) @ r[..., None])[..., 0]

    def log_density(
        self, law: LawOfOne, t: int, sigma: FloatArray, h: IntArray | slice = slice(None)
    ) -> FloatArray:
        """Return log p(y | h, sigma), (H, S)."""
        out = np.empty((len(law.mean[h]), len(sigma)))
        common = None if law.follows_noise is not None else self.rotated(law, t, h)
        for j, s in enumerate(sigma):
            length, _, r = self.rotated(law, t, h, float(s)) if common is None else common
            square = (r**2 / (length + s**2)).sum(axis=1) + self.rest / s**2
            out[:, j] = -0.5 * (np.log1p(length / s**2).sum(axis=1) + square) - self.n_rows * np.log(s)
        # So far below the best, what all rows but one say is a difference without digits.
        out[out < out.max() - _LEAST**-2] = -np.inf
        return out + 0.5 * (self.log_precision.sum() - self.n_rows * _LOG_2PI)

    def rows_left_out(
        self, law: LawOfOne, t: int, h: IntArray, sigma: FloatArray, log_weight: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return log p(y_i | other rows) (n,), and what each h adds to the error of their sum.

        `log_weight` is how likely h and sigma are, (len(h), len(sigma)).
        """
        total = np.empty(self.n_rows)
        pull = self.n_rows * np.exp(logsumexp(log_weight, axis=1))
        step = max(1, _BLOCK // log_weight.size)
        for start in range(0, self.n_rows, step):
            rows = slice(start, start + step)
            each = np.empty((*log_weight.shape, len(self.left[rows])))
            for at, j, inverse in self._inverse(law, t, h, sigma, rows):
                np.add(inverse, log_weight[at, j, None], out=each[at, j])
            most = each.max(axis=(0, 1))
            each -= most
            np.exp(each, out=each)
            whole = each.sum(axis=(0, 1))
            total[rows] = most + np.log(whole)
            pull -= (each @ (1.0 / whole)).sum(axis=1)
        return -total, pull

    def log_density_without(self, law: LawOfOne, t: int, h: IntArray, sigma: FloatArray) -> FloatArray:
        """Return log p(y | sigma) of all rows, and of all but each of those that are hardest to predict.

        Returns
        -------
        (1 + m, S)
        """
        whole = self.log_density(law, t, sigma, h)
        odd = np.argsort(-np.abs(self.left) / np.sqrt(np.maximum(self.outside, 1e-12)), kind="stable")[:_ODD]
        without = np.full((len(odd), len(sigma)), -np.inf)
        for at, j, each in self._inverse(law, t, h, sigma, odd):
            found = logsumexp(each + whole[at, j, None], axis=0)
            without[:, j] = np.logaddexp(without[:, j], found.T)
        return np.concatenate([logsumexp(whole, axis=0)[None], without])

    def _inverse(
        self, law: LawOfOne, t: int, h: IntArray, sigma: FloatArray, rows: slice | IntArray
    ) -> Iterator[tuple[slice, slice, FloatArray]]:
        """Yield -log p(y_i | other rows, h, sigma) of some rows, (m, s, n), piece by piece."""
        pieces = [slice(None)] if law.follows_noise is None else [slice(j, j + 1) for j in range(len(sigma))]
        place, left, outside = self.place[rows], self.left[rows], self.outside[rows]
        scale = _LOG_2PI - self.log_precision[rows]
        step = max(1, _BLOCK // (len(left) * (len(self.target) + len(sigma))))
        for start in range(0, len(h), step):
            at = slice(start, start + step)
            for j in pieces:
                known = None if law.follows_noise is None else float(sigma[j][0])
                length, U, r = self.rotated(law, t, h[at], known)
                variance = sigma[j, None] ** 2
                share = variance / (length[:, None] + variance)  # (m, s, F)
                turned = np.swapaxes(place @ U, 1, 2)  # (m, F, n)
                error = (r[:, None] * share) @ turned
                error += left
                spare = share @ np.square(turned)
                spare += outside
                error *= error
                error /= variance
                error /= spare
                error -= np.log(spare, out=spare)
                error += scale + np.log(variance)
                error *= 0.5
                yield at, j, error


def _grid(
    task: _Task, law: LawOfOne, t: int, log_prior: Callable[[FloatArray], FloatArray] | float
) -> FloatArray:
    """Return where the noise scale of a task may be: first from far away, then finely."""
    if isinstance(log_prior, float):
        return np.array([log_prior])
    some = np.unique(np.linspace(0, len(law.mean) - 1, 20).astype(int))

    def height(sigma: FloatArray) -> FloatArray:
        found = task.log_density_without(law, t, some, sigma)
        return np.asarray(found + log_prior(sigma) + np.log(sigma) + floor(sigma, task.rest))

    whole = np.sqrt((task.rest + (task.target**2).sum()) / task.n_rows)
    return adaptive_grid(height, whole, _STEPS if task.n_rows < _MANY else _STEPS_OF_MANY)


def floor(sigma: FloatArray, rest: float) -> FloatArray:
    """Return -inf where the noise scale is so small that differences of squares have no digits left."""
    return np.where(sigma < _LEAST * np.sqrt(rest), -np.inf, 0.0)


def adaptive_grid(height: Callable[[FloatArray], FloatArray], about: float, steps: int) -> FloatArray:
    """Return even steps of log sigma over all values that count for an integral over log sigma.

    Parameters
    ----------
    height : callable
        Log of what is integrated, of one function or several.
    about : float
        A value; the others are looked for twelve orders of magnitude above and below.
    """
    about = about if about > 0 else 1.0
    log_sigma = np.log(about) + np.linspace(-28.0, 28.0, 225)
    for _ in range(_ROUNDS):
        found = np.atleast_2d(height(np.exp(log_sigma)))
        near = np.flatnonzero((found > found.max(axis=1, keepdims=True) - _FAR).any(axis=0))
        first, last = log_sigma[max(near[0] - 1, 0)], log_sigma[min(near[-1] + 1, len(log_sigma) - 1)]
        enough = len(near) > steps // 3
        log_sigma = np.linspace(first, last, steps)
        if enough:
            break
    return np.asarray(np.exp(log_sigma))


def _cells(joint: FloatArray, n: int) -> tuple[IntArray, FloatArray]:
    """Return at most n draws h, by how likely they are, and log weights of (h, sigma) that add up to one."""
    of_draw = logsumexp(joint, axis=1)
    if n >= len(joint):
        likely = np.flatnonzero(of_draw > of_draw.max() - 40.0)
        return likely, joint[likely] - logsumexp(joint[likely])
    total = np.cumsum(np.exp(of_draw))
    h = np.minimum(np.searchsorted(total, (np.arange(n) + 0.5) / n * total[-1]), len(joint) - 1)
    return h, joint[h] - of_draw[h, None] - np.log(n)
