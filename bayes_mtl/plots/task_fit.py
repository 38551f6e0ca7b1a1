"""What the model says of each task's outcomes beside the outcomes, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.inference.attributes import data_of, rows_by_task, schema_of, spec_of
from bayes_mtl.inference.hyperdraws import evenly_spaced, thinned
from bayes_mtl.inference.log_likelihood import fitted_predictor, sigma_of_rows
from bayes_mtl.plots._common import BLUE, MAX_ROWS, RED, FigureSize, axes, bare, label_rows, rows_height
from bayes_mtl.summaries.correlation import interval_probability

_DRAWS = 200


def plot_task_fit(
    idata: xr.DataTree,
    *,
    ci_prob: float | None = None,
    random_seed: int | None = 1,
    ax: Any = None,
    figsize: FigureSize | None = None,
) -> Any:
    """Draw, by task, the mean outcome beside what the model would have expected it to be.

    A posterior predictive check of each task's mean: the bar is the interval of the mean of as many
    replicated outcomes, the point the observed mean (red if outside).

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    ci_prob : float, optional
        Probability of the interval; default ArviZ's ``stats.ci_prob``.
    random_seed : int, optional
        For the replicated outcomes.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> mtl.plot_task_fit(idata)  # doctest: +SKIP
    """
    prob, data, family = interval_probability(ci_prob), data_of(idata), spec_of(idata).family
    part = thinned(idata["posterior"].to_dataset(), _DRAWS)
    eta = fitted_predictor(part, rows_by_task(idata, "constant_data"), list(schema_of(idata).groupings))
    sigma = sigma_of_rows(part, data.task_index) if data.noise is None else data.noise
    replicated = family.draw(np.random.default_rng(random_seed), eta, sigma / np.sqrt(data.weights))
    *means, observed = (
        np.bincount(data.task_index, y, minlength=data.n_tasks) / data.rows_per_task
        for y in (*replicated, data.y)
    )
    low, high = np.quantile(means, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    order = np.argsort(-observed, kind="stable")
    order = order[evenly_spaced(len(order), MAX_ROWS)]
    at, outside = np.arange(len(order)), (observed < low) | (observed > high)
    ax = axes(ax, 6.4, rows_height(len(order)), figsize)
    ax.hlines(at, low[order], high[order], color=BLUE, linewidth=5, alpha=0.3)
    for mask, colour in ((~outside[order], BLUE), (outside[order], RED)):
        ax.plot(observed[order][mask], at[mask], "o", color=colour, markersize=4)
    label_rows(ax, [data.tasks[t] for t in order])
    bare(ax)
    schema = schema_of(idata)
    ax.set_xlabel(f"mean {schema.outcome}", fontsize=9)
    ax.set_title(
        f"{outside.sum()} of {len(observed)} observed means outside their {prob:.0%} predictive interval",
        loc="left",
        fontsize=10,
    )
    return ax
