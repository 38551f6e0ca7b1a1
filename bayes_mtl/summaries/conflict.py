"""Whether tasks pull what they share in the same direction."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import sum_by_task
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import data_of, rows_by_task, schema_of, spec_of
from bayes_mtl.inference.deviations import task_means
from bayes_mtl.inference.hyperdraws import thinned
from bayes_mtl.inference.log_likelihood import fitted_predictor
from bayes_mtl.summaries.correlation import interval_probability

_DRAWS = 500


def gradient_conflict(idata: xr.DataTree, *, ci_prob: float | None = None) -> xr.Dataset:
    """Compare the directions in which tasks would move the population mean.

    The gradient of the log-likelihood of task t by the coefficients that all tasks share, taken at the
    population mean (with task features: at the mean that they give the task), says where the task wants it
    to go. Two tasks conflict if their gradients point away from each other.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    ci_prob : float, optional
        Probability of the equal-tailed interval; default ArviZ's ``stats.ci_prob``.

    Returns
    -------
    Dataset
        One entry per pair of tasks (dim ``pair``; coordinates ``task_a``, ``task_b``): ``mean``, ``sd``,
        ``lower``, ``upper`` of the cosine, ``p_positive`` = P(cosine > 0), ``p_conflict`` = P(cosine < 0).
        `plot_task_correlation` draws it.

    Raises
    ------
    SpecError
        If there is a single task, or no coefficient varies.

    Notes
    -----
    The cosine is taken in the metric of the inverse pooled information, g_t' J^-1 g_s with J = sum_t X_t' W
    X_t, so that it does not depend on the units of the features. It describes the data, not a parameter:
    sampling noise in the gradients of small tasks is not part of the interval. A posterior needs no way out
    of such conflicts, since densities add; it needs a structure that lets the tasks differ.

    References
    ----------
    Yu et al. (2020), Gradient surgery for multi-task learning, NeurIPS (conflicting gradients).

    Examples
    --------
    >>> mtl.gradient_conflict(idata).to_dataframe().query("p_conflict > 0.95")  # doctest: +SKIP
    """
    prob = interval_probability(ci_prob)
    cosine, tasks = conflict_draws(idata)
    a, b = np.triu_indices(len(tasks), k=1)
    pairs = cosine[:, a, b]
    lower, upper = np.quantile(pairs, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    values = {
        "mean": pairs.mean(axis=0),
        "sd": pairs.std(axis=0),
        "lower": lower,
        "upper": upper,
        "p_positive": (pairs > 0).mean(axis=0),
        "p_conflict": (pairs < 0).mean(axis=0),
    }
    return xr.Dataset(
        {name: ("pair", value) for name, value in values.items()},
        coords={"task_a": ("pair", tasks[a]), "task_b": ("pair", tasks[b])},
        attrs={"kind": "conflict", "ci_prob": prob, "task": schema_of(idata).task or "outcome"},
    )


def conflict_draws(idata: xr.DataTree) -> tuple[FloatArray, FloatArray]:
    """Return the cosines of every draw (at most 500), shape (D, T, T), and the labels of the tasks."""
    data, family = data_of(idata), spec_of(idata).family
    posterior = thinned(idata["posterior"].to_dataset(), _DRAWS)
    if data.n_tasks < 2 or "beta_mean" not in posterior:
        found = f"found {data.n_tasks} task" if data.n_tasks < 2 else "but every feature is shared"
        raise SpecError(Finding("gradient_conflict", f"needs two tasks and a feature that varies, {found}"))
    mean = task_means(idata, posterior).broadcast_like(posterior["beta"])
    at_mean = posterior.assign(beta=mean)
    eta = fitted_predictor(at_mean, rows_by_task(idata, "constant_data"), list(schema_of(idata).groupings))
    out = np.empty((len(eta), data.n_tasks, data.n_tasks))
    for d in range(len(eta)):
        weight, slope = family.information(data, eta[d])
        gradient = sum_by_task(data.X * slope[:, None], data.starts)
        metric = np.linalg.cholesky((data.X * weight[:, None]).T @ data.X)
        white = np.linalg.solve(metric, gradient.T).T
        white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-300)
        out[d] = white @ white.T
    return out, np.array(data.tasks)
