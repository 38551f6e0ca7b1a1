"""Whether tasks pull what they share in the same direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.arguments import task_positions, truth
from bayes_mtl.data import sum_by_task
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import data_of, rows_by_task, schema_of, spec_of
from bayes_mtl.inference.deviations import task_means
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES, thinned
from bayes_mtl.inference.log_likelihood import fitted_predictor
from bayes_mtl.summaries.correlation import (
    check_number,
    interval_probability,
    pair_coords,
    pair_summaries,
)
from bayes_mtl.summaries.pair_draws import PairDraws

_DRAWS = 500


def gradient_conflict(
    idata: xr.DataTree,
    *,
    tasks: Sequence[Label] | None = None,
    ci_prob: float | None = None,
    progressbar: bool = True,
) -> xr.Dataset:
    """Compare the directions in which tasks would move the population mean.

    The gradient of the log-likelihood of task t by the coefficients that all tasks share, taken at the
    population mean (with task features: at the mean that they give the task), says where the task wants it
    to go. Two tasks conflict if their gradients point away from each other.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    tasks : sequence of labels, optional
        Only the pairs of these tasks. Default: all tasks. Needed beyond 2,896 tasks.
    ci_prob : float, optional
        Probability of the equal-tailed interval; default ArviZ's ``stats.ci_prob``.
    progressbar : bool
        Show progress if it takes more than two seconds.

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
    prob, progressbar = interval_probability(ci_prob), truth("progressbar", progressbar)
    known = np.array(data_of(idata).tasks, dtype=object)
    at = task_positions(known, tasks, least=2)
    check_number(len(at), "task", "gradient_conflict")
    values = pair_summaries(_gradients(idata, at), prob, "gradients of tasks", show=progressbar)
    values["p_conflict"] = values.pop("p_negative")
    return xr.Dataset(
        {name: ("pair", value) for name, value in values.items()},
        coords=pair_coords(known[at]),
        attrs={"kind": "conflict", "ci_prob": prob, "task": schema_of(idata).task or "outcome"},
    )


def conflict_draws(idata: xr.DataTree) -> tuple[FloatArray, FloatArray]:
    """Return the cosines of every draw (at most 500), shape (D, T, T), and the labels of the tasks."""
    tasks = np.array(data_of(idata).tasks)
    white = _gradients(idata, np.arange(len(tasks))).vectors
    assert white is not None
    return np.einsum("ktd,ksd->dts", white, white), tasks


def _gradients(idata: xr.DataTree, at: IntArray) -> PairDraws:
    """Return the directions of the gradients of some tasks, in coordinates in which J is the identity."""
    data, family = data_of(idata), spec_of(idata).family
    posterior = thinned(idata["posterior"].to_dataset().drop_vars("task_corr", errors="ignore"), _DRAWS)
    if data.n_tasks < 2 or "beta_mean" not in posterior:
        found = f"found {data.n_tasks} task" if data.n_tasks < 2 else "but every feature is shared"
        raise SpecError(Finding("gradient_conflict", f"needs two tasks and a feature that varies, {found}"))
    fixed, groupings = rows_by_task(idata, "constant_data"), list(schema_of(idata).groupings)
    n_draws = posterior.sizes["draw"]
    out = np.empty((data.n_features, len(at), n_draws))
    step = max(1, CHUNK_BYTES // (32 * (data.n_rows + data.n_tasks * data.n_features)))
    for start in range(0, n_draws, step):
        part = posterior.isel(draw=slice(start, start + step))
        eta = fitted_predictor(
            part.assign(beta=task_means(idata, part).broadcast_like(part["beta"])), fixed, groupings
        )
        for d, one in enumerate(eta, start):
            weight, slope = family.information(data, one)
            gradient = sum_by_task(data.X * slope[:, None], data.starts)
            metric = np.linalg.cholesky((data.X * weight[:, None]).T @ data.X)
            white = np.linalg.solve(metric, gradient[at].T)
            out[:, :, d] = white / np.maximum(np.linalg.norm(white, axis=0), 1e-300)
    return PairDraws(out, None, (1, n_draws))
