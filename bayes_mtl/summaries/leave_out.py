"""How well the rest predicts what is left out: a row, or a whole task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import logsumexp

from bayes_mtl._typing import FloatArray
from bayes_mtl.arguments import generator, truth
from bayes_mtl.data import TaskData
from bayes_mtl.data.labels import as_coordinate
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import data_of, reads_data_once, schema_of, spec_of
from bayes_mtl.inference.fit import check_sampler
from bayes_mtl.inference.leave_out import Stored, law_of_rows
from bayes_mtl.model.mixture import CLUSTER_COV
from bayes_mtl.progress import progress
from bayes_mtl.summaries.refit import fit_without, keep_rows
from bayes_mtl.summaries.row_scores import (
    MAX_PARETO_K,
    RowLaw,
    RowScores,
    batch_variance,
    by_batch,
    enough_draws,
    row_elpd,
    row_scores,
    score_rows,
    smoothed_weights,
)

_DRAWS = 1000

__all__ = ["leave_one_task_out", "row_elpd", "row_scores"]


@reads_data_once
def leave_one_task_out(
    idata: xr.DataTree, *, refit: bool = True, random_seed: int | None = 1, **sampler: Any
) -> xr.Dataset:
    """Say how well the other tasks predict all outcomes of a task.

    Exact given the hyperparameters (Gaussian outcomes): the task is taken out of their Gaussian posterior
    in closed form (under mixtures, given which tasks are independent, it is a sum over components).
    Hyperparameters are reweighted (Pareto-smoothed importance sampling); where a task moves them too far
    for that, the model is fitted again without its rows.

    Parameters
    ----------
    idata : DataTree
        A fit of Gaussian outcomes.
    refit : bool
        Whether to fit again where importance sampling fails (``pareto_k`` > 0.7).
    random_seed : int, optional
        Of these fits.
    **sampler
        Options of these fits: `draws`, `tune`, `chains`, ... (default 1000, 1000, 2).

    Returns
    -------
    Dataset
        By task: ``elpd``, the log density of its outcomes given those of all other tasks, and ``elpd_mcse``,
        its Monte Carlo error; ``surprise``, the probability that a task drawn from the population of the
        others would lie further out (uniform between 0 and 1 for a task like them, small for one that
        contradicts them; NaN under mixtures, whose populations have no one centre); ``pareto_k``;
        ``refitted``; ``n_rows``.

    Raises
    ------
    SpecError
        If the outcomes are not Gaussian.

    References
    ----------
    Marshall & Spiegelhalter (2007), Identifying outliers in Bayesian hierarchical models, Bayesian Analysis
    2.

    Examples
    --------
    >>> mtl.leave_one_task_out(idata)["elpd"].to_series()  # doctest: +SKIP
    """
    found = without_each_task(idata, refit=refit, random_seed=random_seed, **sampler)
    data = data_of(idata)
    columns = {
        "elpd": found.elpd,
        "elpd_mcse": np.sqrt(batch_variance(found.error)),
        "surprise": found.surprise,
        "pareto_k": found.pareto_k,
        "refitted": found.refitted,
        "n_rows": data.rows_per_task,
    }
    return xr.Dataset(
        {name: ("task", values) for name, values in columns.items()},
        coords={"task": as_coordinate(data.tasks)},
        attrs={"task": schema_of(idata).task or "outcome"},
    )


@dataclass(frozen=True)
class TaskScores:
    """Scores of tasks that were left out, one by one.

    Attributes
    ----------
    elpd : (T,)
        log p(y_t | outcomes of all other tasks).
    surprise : (T,)
        P(a task drawn from the population of the others lies further out); NaN under mixtures.
    pareto_k : (T,)
        Of the weights of draws.
    error : (20, T)
        By how much each batch of draws moves `elpd`.
    refitted : (T,)
        Which were left out by fitting again.
    """

    elpd: FloatArray
    surprise: FloatArray
    pareto_k: FloatArray
    error: FloatArray
    refitted: npt.NDArray[np.bool_]


def without_each_task(
    idata: xr.DataTree, *, refit: bool = True, random_seed: int | None = 1, **sampler: Any
) -> TaskScores:
    """Score each task given the others, where weights fail by fitting again."""
    spec = spec_of(idata)
    generator(random_seed)
    refit = truth("refit", refit)
    check_sampler(sampler)
    if not spec.family.gaussian_coefficients:
        name = type(spec.family).__name__
        raise SpecError(Finding("leave_one_task_out", f"needs Gaussian outcomes, found {name}"))
    data = data_of(idata)
    check_several_tasks(data, "leave_one_task_out")
    scores = task_scores(law_of_tasks(idata), data)
    far = np.flatnonzero(refit & (scores.pareto_k > MAX_PARETO_K))
    with progress("refits without a task", len(far), show=sampler.get("progressbar", True)) as done:
        for t in far:
            rest = fit_without(idata, int(t), random_seed=random_seed, **sampler)
            scores.elpd[t], scores.surprise[t], scores.error[:, t] = _score_of_absent(rest, data, int(t))
            scores.refitted[t] = True
            done()
    return scores


def task_scores(law: RowLaw, data: TaskData) -> TaskScores:
    """Score each task given the others by reweighting draws of the hyperparameters."""
    n_draws, n_tasks = len(law.hyper), data.n_tasks
    density, surprise = np.empty((n_draws, n_tasks)), np.empty((n_draws, n_tasks))
    for at, piece in law.chunks():
        density[at], surprise[at] = piece.task_log_density(data), piece.task_surprise()
    weight, k = smoothed_weights(density)
    with np.errstate(divide="ignore"):
        surprise_of_others = np.exp(logsumexp(weight + np.log(surprise), axis=0))
    elpd = logsumexp(weight + density, axis=0)
    # Of sum_d W_d p_d / sum_d W_d, what draw d adds to the error of its logarithm.
    error = by_batch(np.exp(weight + density - elpd) - np.exp(weight))
    return TaskScores(elpd, surprise_of_others, k, error, np.zeros(n_tasks, dtype=bool))


def score_of_absent(rest: xr.DataTree, data: TaskData, t: int) -> tuple[float, float]:
    """Return log density and surprise of task t under a fit that did not see it."""
    return _score_of_absent(rest, data, t)[:2]


def _score_of_absent(rest: xr.DataTree, data: TaskData, t: int) -> tuple[float, float, FloatArray]:
    density, surprise = [], []
    for _, piece in law_of_tasks(rest, data).chunks():
        density.append(piece.task_log_density(data)[:, t])
        surprise.append(piece.task_surprise()[:, t])
    every = np.concatenate(density)
    elpd = float(logsumexp(every) - np.log(len(every)))
    error = by_batch((np.exp(every - elpd) - 1.0) / len(every))
    return elpd, float(np.concatenate(surprise).mean()), error


def law_of_tasks(idata: xr.DataTree, data: TaskData | None = None) -> RowLaw:
    """Read the law of the coefficients of a fit, or say that it is not stored."""
    law = law_of_rows(idata, _DRAWS, data)
    if law is None:
        found = f"needs how components vary ({CLUSTER_COV}), which this fit does not hold"
        raise SpecError(Finding("leave_one_task_out", found, "Fit it again"))
    return law


def row_scores_without(idata: xr.DataTree, t: int) -> RowScores:
    """Score each row of the other tasks given all others, had task t not been there.

    By importance sampling of the hyperparameters, for tasks that do not move them far (Pareto k of
    `task_scores`).
    """
    data = data_of(idata)
    draws = enough_draws(data)
    without = keep_rows(data, data.task_index != t)
    whole, rest = (Stored.read(idata, data=d, draws=draws) for d in (data, without))
    of_task = np.concatenate([piece.task_log_density(data)[:, t] for _, piece in whole.chunks()])
    return score_rows(rest, rest.data, also_out=np.repeat(of_task[:, None], data.n_tasks, axis=1))


def check_several_tasks(data: TaskData, who: str) -> None:
    """Say so if there is no other task to learn from."""
    if data.n_tasks == 1:
        raise SpecError(Finding(who, "needs two tasks at least, found one", "There is nothing to compare"))
