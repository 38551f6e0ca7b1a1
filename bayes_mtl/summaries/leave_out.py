"""How well the rest predicts what is left out: a row, or a whole task."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bayes_mtl._typing import FloatArray
from bayes_mtl.arguments import generator, truth
from bayes_mtl.data import TaskData
from bayes_mtl.data.labels import as_coordinate
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import data_of, reads_data_once, schema_of, spec_of
from bayes_mtl.inference.leave_out import Stored
from bayes_mtl.progress import progress
from bayes_mtl.structures import TaskMixture
from bayes_mtl.summaries.refit import fit_without, keep_rows
from bayes_mtl.summaries.row_scores import (
    MAX_PARETO_K,
    RowScores,
    enough_draws,
    row_elpd,
    row_scores,
    score_rows,
    smoothed_weights,
)

__all__ = ["leave_one_task_out", "row_elpd", "row_scores"]


@reads_data_once
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
    generator(random_seed)
    refit = truth("refit", refit)
    if not spec.family.gaussian_coefficients:
        name = type(spec.family).__name__
        raise SpecError(Finding("leave_one_task_out", f"needs Gaussian outcomes, found {name}"))
    data = data_of(idata)
    check_several_tasks(data, "leave_one_task_out")
    elpd, surprise, k = task_scores(idata)
    refitted = np.zeros(len(k), dtype=bool)
    far = np.flatnonzero(refit & (k > MAX_PARETO_K))
    with progress("refits without a task", len(far), show=sampler.get("progressbar", True)) as done:
        for t in far:
            rest = fit_without(idata, int(t), random_seed=random_seed, **sampler)
            elpd[t], surprise[t] = score_of_absent(rest, data, int(t))
            refitted[t] = True
            done()
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


def row_scores_without(idata: xr.DataTree, t: int) -> RowScores:
    """Score each row of the other tasks given all others, had task t not been there.

    By importance sampling of the hyperparameters, for tasks that do not move them far (Pareto k of
    `task_scores`).
    """
    data = data_of(idata)
    draws = enough_draws(data)
    whole, rest = (read_stored(idata, d, draws=draws) for d in (data, keep_rows(data, data.task_index != t)))
    of_task = np.concatenate([piece.task_log_density(data)[:, t] for _, piece in whole.chunks()])
    return score_rows(rest, rest.data, also_out=np.repeat(of_task[:, None], data.n_tasks, axis=1))


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
