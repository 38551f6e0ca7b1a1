"""How well the rest predicts what is left out: a row, or a whole task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from scipy.special import logsumexp

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.data.labels import as_coordinate
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import data_of, order_by_task, schema_of, spec_of
from bayes_mtl.inference.leave_out import Stored, is_closed
from bayes_mtl.inference.log_likelihood import log_likelihood
from bayes_mtl.model import default_priors
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import TaskMixture
from bayes_mtl.summaries.refit import fit_without, keep_rows

# Above, importance weights rest on too few draws (Vehtari et al. 2024, JMLR 25).
MAX_PARETO_K = 0.7
_MAX_ENTRIES = 2**21  # draws x rows


def leave_one_task_out(
    idata: xr.DataTree, *, refit: bool = True, random_seed: int | None = 1, **sampler: Any
) -> xr.Dataset:
    """Say how well the other tasks predict all outcomes of a task.

    Exact given the hyperparameters (Gaussian outcomes): the task is taken out of their Gaussian posterior
    in closed form. Hyperparameters are reweighted (Pareto-smoothed importance sampling); where a task moves
    them too far for that, the model is fitted again without its rows.

    Parameters
    ----------
    idata : DataTree
        A fit of Gaussian outcomes whose structure is no mixture.
    refit : bool
        Whether to fit again where importance sampling fails (``pareto_k`` > 0.7).
    random_seed : int, optional
        Of these fits.
    **sampler
        Options of these fits: `draws`, `tune`, `chains`, ... (default 1000, 1000, 2).

    Returns
    -------
    Dataset
        By task: ``elpd``, the log density of its outcomes given those of all other tasks; ``surprise``, the
        probability that a task drawn from the population of the others would lie further out (uniform
        between 0 and 1 for a task like them, small for one that contradicts them); ``pareto_k``;
        ``refitted``; ``n_rows``.

    Raises
    ------
    SpecError
        If the outcomes are not Gaussian, or the structure is a mixture.

    References
    ----------
    Marshall & Spiegelhalter (2007), Identifying outliers in Bayesian hierarchical models, Bayesian Analysis
    2.

    Examples
    --------
    >>> mtl.leave_one_task_out(idata)["elpd"].to_series()  # doctest: +SKIP
    """
    spec = spec_of(idata)
    if not spec.family.gaussian_coefficients:
        name = type(spec.family).__name__
        raise SpecError(Finding("leave_one_task_out", f"needs Gaussian outcomes, found {name}"))
    data = data_of(idata)
    check_several_tasks(data, "leave_one_task_out")
    elpd, surprise, k = task_scores(idata)
    refitted = np.zeros(len(k), dtype=bool)
    for t in np.flatnonzero(k > MAX_PARETO_K) if refit else ():
        rest = fit_without(idata, int(t), random_seed=random_seed, **sampler)
        elpd[t], surprise[t] = score_of_absent(rest, data, int(t))
        refitted[t] = True
    return xr.Dataset(
        {
            "elpd": ("task", elpd),
            "surprise": ("task", surprise),
            "pareto_k": ("task", k),
            "refitted": ("task", refitted),
            "n_rows": ("task", data.rows_per_task),
        },
        coords={"task": as_coordinate(data.tasks)},
        attrs={"task": schema_of(idata).task or "outcome"},
    )


def task_scores(idata: xr.DataTree) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return log density and surprise of each task given the others, and the Pareto k of the weights."""
    stored = read_stored(idata)
    n_draws, n_tasks = len(stored.hyper), stored.data.n_tasks
    density, surprise = np.empty((n_draws, n_tasks)), np.empty((n_draws, n_tasks))
    for at, piece in stored.chunks():
        density[at], surprise[at] = piece.task_log_density(stored.data), piece.task_surprise()
    weight, k = smoothed_weights(density)
    with np.errstate(divide="ignore"):
        surprise_of_others = np.exp(logsumexp(weight + np.log(surprise), axis=0))
    return logsumexp(weight + density, axis=0), surprise_of_others, k


def score_of_absent(rest: xr.DataTree, data: TaskData, t: int) -> tuple[float, float]:
    """Return log density and surprise of task t under a fit that did not see it."""
    stored = read_stored(rest, data)
    density, surprise = [], []
    for _, piece in stored.chunks():
        density.append(piece.task_log_density(data)[:, t])
        surprise.append(piece.task_surprise()[:, t])
    every = np.concatenate(density)
    return float(logsumexp(every) - np.log(len(every))), float(np.concatenate(surprise).mean())


def row_elpd(idata: xr.DataTree) -> tuple[FloatArray, FloatArray]:
    """Return the log density of each row given all others, and the Pareto k of the weights, both (N,).

    Rows are in the order of `data_of(idata)`.
    """
    spec, data = spec_of(idata), data_of(idata)
    if spec.family.gaussian_coefficients and is_closed(spec):
        density = _row_log_density(Stored.read(idata, draws=_enough_draws(data)))
    else:
        known = idata["log_likelihood"].to_dataset() if "log_likelihood" in idata else log_likelihood(idata)
        density = known["y"].transpose("chain", "draw", "row").to_numpy().reshape(-1, data.n_rows)
        density = density[:, order_by_task(idata)]
    weight, k = smoothed_weights(density)
    return logsumexp(weight + density, axis=0), k


def row_elpd_without(idata: xr.DataTree, t: int) -> FloatArray:
    """Return the log density of each row of the other tasks given all others, had task t not been there.

    By importance sampling of the hyperparameters, for tasks that do not move them far (Pareto k of
    `task_scores`).
    """
    data = data_of(idata)
    draws = _enough_draws(data)
    whole, rest = (read_stored(idata, d, draws=draws) for d in (data, keep_rows(data, data.task_index != t)))
    of_task = np.concatenate([piece.task_log_density(data)[:, t] for _, piece in whole.chunks()])
    density = _row_log_density(rest)
    weight, _ = smoothed_weights(density + of_task[:, None])
    return logsumexp(weight + density, axis=0)


def _row_log_density(stored: Stored) -> FloatArray:
    return np.concatenate([piece.row_log_density(stored.data) for _, piece in stored.chunks()])


def _enough_draws(data: TaskData) -> int:
    """Return how many draws: a single row hardly moves the hyperparameters, so few will do for many rows."""
    return int(np.clip(_MAX_ENTRIES // data.n_rows, 250, 1000))


def row_elpd_by_quadrature(spec: ModelSpec, data: TaskData) -> FloatArray | None:
    """Return the log density of each row given all others, where the noise scale is the only hyperparameter.

    sigma is integrated over a grid of its posterior, so nothing is sampled. None if there is more to sample.
    """
    if not is_closed(spec) or data.groupings or spec.feature_scales is not None:
        return None
    prior = default_priors(spec, data)[0]["sigma"]
    if data.noise is not None:
        prior = 1.0
    fixed = not isinstance(prior, Prior)
    sigma = np.array([float(prior)]) if fixed else np.geomspace(1e-3, 10.0, 200) * data.y.std()
    stored = Stored.at(spec, data, sigma)
    if stored.population.sampled is not None or getattr(spec.family, "task_noise", False):
        return None
    log_weight = np.zeros(1)
    for _ in range(0 if fixed else 2):  # first where it is, then finely
        log_weight = np.concatenate([piece.log_marginal(data) for _, piece in stored.chunks()])
        # Even steps of log sigma.
        log_weight += _log_density(prior, stored.hyper.sigma[:, 0]) + np.log(stored.hyper.sigma[:, 0])
        near = np.flatnonzero(log_weight > log_weight.max() - 20.0)
        first, last = sigma[max(near[0] - 1, 0)], sigma[min(near[-1] + 1, len(sigma) - 1)]
        found, sigma = stored, np.geomspace(first, last, 60)
        stored = Stored.at(spec, data, sigma)
    found = stored if fixed else found
    density = np.concatenate([piece.row_log_density(data) for _, piece in found.chunks()])
    # p(y_i | rest) = 1 / E[1 / p(y_i | rest, sigma)]
    return -logsumexp((log_weight - logsumexp(log_weight))[:, None] - density, axis=0)


def _log_density(prior: Prior, values: FloatArray) -> FloatArray:
    distribution = getattr(pm, prior.distribution).dist(**dict(prior.params))
    return np.asarray(pm.logp(distribution, values).eval(mode="FAST_COMPILE"))


def smoothed_weights(log_density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weights of draws if a density is left out, as normalised logs (D, K), and Pareto k (K,).

    They are proportional to 1 / density, with the tail of the largest smoothed.
    """
    from arviz_stats.base import array_stats  # loads slowly

    # Draws that all weigh the same have no tail to smooth.
    if len(log_density) < 25 or np.ptp(log_density, axis=0).max() < 1e-9:
        return -log_density - logsumexp(-log_density, axis=0), np.zeros(log_density.shape[1])
    weight, k = array_stats.psislw(np.ascontiguousarray(log_density.T), axis=-1)
    return np.asarray(weight).T, np.asarray(k)


def check_several_tasks(data: TaskData, who: str) -> None:
    """Say so if there is no other task to learn from."""
    if data.n_tasks == 1:
        raise SpecError(Finding(who, "needs two tasks at least, found one", "There is nothing to compare"))


def read_stored(
    idata: xr.DataTree, data: TaskData | None = None, *, draws: int = 1000, who: str = "leave_one_task_out"
) -> Stored:
    """Read the law of the coefficients of a fit, or say, for `who` asks, that it has no closed form."""
    spec = spec_of(idata)
    if isinstance(spec.task_covariance, TaskMixture):
        found = f"under {type(spec.task_covariance).__name__} a task is in one of several populations"
        raise SpecError(Finding(who, found, "Look at `clusters` instead"))
    return Stored.read(idata, data=data, draws=draws)
