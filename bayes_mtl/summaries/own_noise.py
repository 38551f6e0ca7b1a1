"""Whether a task stands out by its noise, and whether it still does if it has a noise of its own."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import chi2

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data import TaskData
from bayes_mtl.inference.leave_out import LeftOut, Stored
from bayes_mtl.spec import ModelSpec
from bayes_mtl.summaries.row_scores import smoothed_weights

_OWN = 0.1  # prior probability that the noise of a task is its own
_WIDE = 1.5  # of the logarithm of how much it then differs from that of the others
_NODES = 41
_DRAWS = 400


def may_have_own_noise(spec: ModelSpec, data: TaskData) -> bool:
    """Return whether outcomes have noise that is not known, so that a task could have one of its own."""
    return spec.family.gaussian_coefficients and data.noise is None


def surprise_given_noise(fitted: xr.DataTree, data: TaskData, tasks: IntArray, *, absent: bool) -> FloatArray:
    """Return P(a task of the population of the others lies further out) of some tasks, whatever their noise.

    With probability 0.1 the noise of a task is its own, a priori within a factor of about 4 of that of the
    others (log-normal); what is left of its rows around its own least squares says how large. Without degrees
    of freedom it says nothing, and the noise is that of all.

    Parameters
    ----------
    fitted : DataTree
    data : TaskData
        With the rows of these tasks.
    tasks : (K,)
        Their places among the tasks of `data`.
    absent : bool
        Whether the fit did not see them; otherwise draws are reweighted, for each task by itself.
    """
    stored = Stored.read(fitted, data=data, draws=_DRAWS)
    density, surprise = np.empty((2, len(stored.hyper), len(tasks)))
    for at, piece in stored.chunks():
        density[at] = piece.task_log_density(data)[:, tasks]
        for k, t in enumerate(tasks):
            surprise[at, k] = _surprise(piece, data, int(t))
    if absent:
        return np.asarray(surprise.mean(axis=0))
    return np.asarray((np.exp(smoothed_weights(density)[0]) * surprise).sum(axis=0))


def _surprise(piece: LeftOut, data: TaskData, t: int) -> FloatArray:
    length, square = piece.task_error(t)
    spare = data.statistics.count[t] - piece.rows.rank[t]
    sigma = piece.hyper.sigma[:, min(t, piece.hyper.sigma.shape[1] - 1)]
    z = np.linspace(-3.0, 3.0, _NODES)
    log_ratio = np.concatenate([[0.0], _WIDE * z])
    own = np.exp(-0.5 * z**2)
    prior = np.concatenate([[1.0 - _OWN], _OWN * own / own.sum()])
    variance = (sigma[:, None] * np.exp(log_ratio)) ** 2  # (D, nodes)
    log_weight = np.log(prior) - 0.5 * spare * np.log(variance) - 0.5 * piece.rest[:, t, None] / variance
    if spare <= 0:
        log_weight = np.where(log_ratio == 0.0, 0.0, -np.inf)[None] + np.zeros((len(sigma), 1))
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    total = (square[:, None] / (length[:, None] + variance[..., None])).sum(axis=-1)
    return np.asarray((weight * chi2.sf(total, max(int(piece.rows.rank[t]), 1))).sum(axis=1))
